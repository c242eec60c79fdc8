"""A round of secure aggregation without a wire: every message encoded, decoded, and lost where a test says so."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from clusterai.protocol.canonical import decode, encode
from clusterai.protocol.ids import Address
from clusterai.protocol.signing import Key
from clusterai.runtime.machine import Received, Save, Send, Started, Tick
from clusterai.vault.adapters.masking import Libraries
from clusterai.vault.core.secagg import graph
from clusterai.vault.core.secagg.collector import Collector, Failed, Summed
from clusterai.vault.core.secagg.member import Contribution, Member
from clusterai.vault.core.secagg.messages import Spec, ToServer, to_member, to_server

SERVER = Key(b"\x77" * 32)
LIBRARIES = Libraries()
PHASE_S = 10.0
END_S = 10_000
LIMIT = 1 << 28


def keys(count: int) -> dict[Address, Key]:
    made = [Key(blake3(b"member" + i.to_bytes(4)).digest()) for i in range(count)]
    return {key.address: key for key in sorted(made, key=lambda key: key.address)}


def spec(who: Iterable[Address], length: int = 40, bits: int = 26, **changes: Any) -> Spec:
    cohort = tuple(sorted(who))
    plain: dict[str, Any] = {
        "server": SERVER.address,
        "nonce": bytes(32),
        "cohort": cohort,
        "beacon": b"\x05" * 32,
        "groups": 1,
        "group": 0,
        "length": length,
        "bits": bits,
        "degree": 0,
        "threshold": graph.quorum(len(cohort)),
        "purpose": bytes(32),
        "expires_s": END_S,
    }
    return Spec(**{**plain, **changes})


def inputs(count: int, length: int = 40, top: int = 30_000, seed: int = 1) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-top, top, (count, length), endpoint=True)


class Table:
    """A server, its members, and who of them answers in which phase (0-4)."""

    def __init__(
        self,
        count: int = 9,
        length: int = 40,
        dead_from: dict[int, int] | None = None,
        replaced: dict[int, Callable[[Member], Any]] | None = None,
        **changes: Any,
    ) -> None:
        self.keys = keys(count)
        self.spec = spec(self.keys, length, **changes)
        self.inputs = inputs(count, length)
        self.members: list[Any] = []
        for i, who in enumerate(graph.members(self.spec)):
            member = Member(self.spec, self.keys[who], who, Contribution(self.inputs[i], i + 1), LIBRARIES)
            self.members.append((replaced or {}).get(i, lambda m: m)(member))
        self.dead_from = dead_from or {}
        self.journal: list[Any] = []
        self.now_s = 0.0
        self.server = self.started()

    def started(self) -> Collector:
        """A server from the journal: the first, or after a crash."""
        server = Collector(self.spec, SERVER, LIBRARIES, PHASE_S)
        server.restore([decode(encode(record), Collector.RECORDS, LIMIT) for record in self.journal])
        return server

    def play(self, crash: Callable[[int], bool] = lambda said: False) -> Summed | Failed:
        """Until an outcome. `crash(n)` kills the server after its n-th record is durable, before its effects act."""
        todo = list(self.server.step(Started(), self.now_s))
        said = 0
        while self.server.outcome is None:
            waiting: list[tuple[Address, ToServer]] = []
            crashed = False
            for effect in todo:
                if isinstance(effect, Save):
                    self.journal.append(effect.record)
                    said += 1
                    if crash(said):
                        crashed = True
                        break
                elif isinstance(effect, Send):
                    reply = self.asked(effect)
                    if reply is not None:
                        waiting.append((effect.to, reply))
            if crashed:
                self.server = self.started()
                todo = list(self.server.step(Started(), self.now_s))
                continue
            todo = []
            for sender, reply in waiting:
                todo.extend(self.server.step(Received(sender, reply), self.now_s))
                if self.server.outcome is not None:
                    break
            if not waiting and not todo:
                self.now_s += PHASE_S
                todo.extend(self.server.step(Tick(), self.now_s))
        return self.server.outcome

    def asked(self, send: Send) -> ToServer | None:
        frame = to_member(encode(send.frame))
        i = graph.members(self.spec).index(send.to)
        phase = ("Invite", "Neighbours", "Boxes", "Roll", "Endorsed").index(type(frame).__name__)
        if phase >= self.dead_from.get(i, 5):
            return None
        reply = self.members[i].answer(frame, self.now_s)
        return None if reply is None else to_server(encode(reply))

    def expected(self, without: Iterable[int]) -> npt.NDArray[np.int64]:
        gone = set(without)
        return np.asarray(sum(row for i, row in enumerate(self.inputs) if i not in gone))


def summed(outcome: Summed | Failed) -> Summed:
    assert isinstance(outcome, Summed), outcome
    return outcome
