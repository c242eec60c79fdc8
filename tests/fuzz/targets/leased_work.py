"""What is carried for leased work beside its specs: what providers lend, segments that they show, states of modules, tasks, and
what a rented cluster has to show for its time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from clusterai.gateway.core.jobplacing import MOST_OFFER_BYTES
from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Digest
from clusterai.protocol.jobs import Segment
from clusterai.sandbox.core.spec import Task, Wasm, decode_task
from clusterai.sandbox.core.state import State, decode_state, memory_of
from clusterai.sandbox.core.wasi import System
from clusterai.work.batch.core.plan import Offer
from clusterai.work.cluster.spec import ClusterSpec, Interval, decode_interval, decode_spec

CONTENT = Digest(b"\x07" * 32)


def _decoder(kind: type[Any], limit: int = canonical.MAX_FRAME_BYTES) -> Callable[[bytes], Any]:
    return partial(canonical.decode, kind=kind, limit=limit)


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "offer": _decoder(Offer, MOST_OFFER_BYTES),
    "segment": _decoder(Segment),
    "state": decode_state,
    "task": decode_task,
    "cluster": decode_spec,
    "interval": decode_interval,
}
NAMES = [*DECODERS]


def once(data: bytes) -> bool:
    """The first byte names what the rest is to be. Each is spelled in one way, and a state's memory is no larger than it says."""
    name, body = NAMES[data[0] % len(NAMES)] if data else NAMES[0], data[1:]
    try:
        value = DECODERS[name](body)
        if isinstance(value, State) and value.size <= 16:
            memory_of(value)
    except Malformed:
        return False
    assert canonical.encode(value) == body
    return True


def seeds() -> list[bytes]:
    state = State(
        task=CONTENT, step=0, fuel=0, ended=None, size=1, pages=(), globals_=(0,), system=System(clock_ns=0)
    )
    interval = Interval(CONTENT, 0, 30, 15, 1, 0, 13_000, CONTENT, CONTENT)
    values: tuple[msgspec.Struct, ...] = (
        Offer(provider="0x" + "ab" * 20),
        Segment(b"spec", CONTENT, (CONTENT,), CONTENT, 1, (CONTENT,)),
        state,
        Task(image=Wasm(CONTENT), argv=("a",), env={"A": "b"}),
        ClusterSpec(env={"A": "b"}),
        interval,
    )
    return [bytes((at,)) + canonical.encode(it) for at, it in enumerate(values)]
