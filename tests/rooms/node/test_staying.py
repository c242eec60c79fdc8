"""A node's stay with its hands: raised, joined, ordered interval by interval as an engine's work, frozen, lowered."""

import asyncio
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.mesh import Member
from clusterai.node.adapters.countersigned import Countersigned
from clusterai.node.adapters.engines import Engines
from clusterai.node.adapters.staying import StayEngine, Staying
from clusterai.node.core.leases import Produced, Serving, Start, Stop
from clusterai.node.core.staybook import Signed, StayTerms
from clusterai.protocol import canonical
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Answer, Transcript
from clusterai.protocol.rentals import (
    AskStayLog,
    Countersign,
    EndStay,
    Heartbeats,
    JoinStay,
    MeshMember,
    OpenStay,
    PauseStay,
    StayBroke,
    StayHears,
    StayLogged,
    StayOpened,
    StayReady,
    StayTold,
    head_of,
    stay_model,
)
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import Order
from clusterai.runtime.machine import Received
from clusterai.work.cluster.adapters.stay import StayFailed
from clusterai.work.cluster.check import judge_answer
from clusterai.work.cluster.core.heartbeats import beats_of, wrong
from clusterai.work.cluster.inside.sentinel import first, link
from clusterai.work.cluster.price import recount
from clusterai.work.cluster.spec import ClusterSpec, Interval
from clusterai.work.engine import EngineFailed, Finish, TokenEvent, Unfit

KEY = Key(b"\x05" * 32)
GATEWAY, STRANGER = Address(b"\x01" * 20), Address(b"\x02" * 20)
LEASE = Digest(b"\x07" * 32)
NETWORK = Domain("ClusterAI", "1", 31415, Address(bytes(20)))
SPEC = ClusterSpec(cpu_milli=2000)
MODEL = stay_model(LEASE, 1, 0)


class Reading:
    def __init__(self, links: tuple[int, ...], values: tuple[bytes, ...], tenant_ms: int) -> None:
        self.links, self.values, self.tenant_ms, self.foreign = links, values, tenant_ms, 0


class Fake:
    """A stay whose chains make one link a reading."""

    def __init__(self) -> None:
        self.key = b"\x09" * 32
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.done: list[str] = []
        self.head = asyncio.Event()
        self.head.set()
        self.unsaid: list[tuple[str, str]] = []
        self.silence: dict[int, float] = {}
        self._seed = bytes(32)
        self._links = 0
        self._values = [b"", b""]
        self._cpu_ms = 0

    async def join(self, head: int, token: bytes) -> Mapping[str, int]:
        self.done.append(f"join {head} {token.decode()}")
        await self.head.wait()
        return {"ray": 12}

    async def remesh(self, members: tuple[Member, ...], relay: Mapping[int, tuple[str, int]]) -> None:
        self.done.append(f"mesh {len(members)} {dict(relay)}")

    async def seen_outside(self, place: int, endpoint: tuple[str, int]) -> None:
        self.done.append(f"seen {place}")

    async def beat(self, seed: bytes) -> Reading:
        if seed != self._seed:
            self._seed, self._links = seed, 0
            self._values = [first(seed, core) for core in range(2)]
        else:
            self._links += 1
            self._values = [link(value, seed) for value in self._values]
        self._cpu_ms += 10
        return Reading((self._links,) * 2, tuple(self._values), self._cpu_ms)

    def log(self, start: int) -> tuple[int, bytes]:
        return 9, b"it began\n"[start:]

    def silent(self) -> dict[int, float]:
        return self.silence

    def news(self) -> list[tuple[str, str]]:
        told, self.unsaid = self.unsaid, []
        return told

    async def freeze(self) -> None:
        self.done.append("freeze")

    async def thaw(self) -> None:
        self.done.append("thaw")

    async def close(self) -> None:
        self.done.append("close")


async def looked_up(host: str, port: int, **more: Any) -> Any:
    """As the loop does, without its thread."""
    return socket.getaddrinfo(host, port, **more)


class Bench:
    """A staying node without network: what it sends and reports is kept."""

    def __init__(self, folder: Path, fails: StayFailed | None = None) -> None:
        loop: Any = asyncio.get_running_loop()
        loop.getaddrinfo = looked_up
        self.sent: list[Any] = []
        self.reported: list[Any] = []
        self.vacancies: list[bool] = []
        self.stays: list[Fake] = []
        self.fails = fails
        self.is_headless = False
        self.engines = Engines((), self, self.reported.append, None)  # type: ignore[arg-type]
        terms = StayTerms(
            KEY.address,
            NETWORK,
            1000,
            lambda spec: None,
            86_400,
            KEY.sign,
            lambda digest, signature, gateway: True,
        )
        self.signed: list[Signed] = []
        self.staying = Staying(
            terms,
            folder,
            self.engines,
            self.opens,
            self.keep,
            self.vacancies.append,
            self.signed.append,
            lambda: 1_000_000.0,
        )

    async def opens(self, lease: Digest, place: int, spec: ClusterSpec, folder: Path) -> Fake:
        if self.fails is not None:
            raise self.fails
        self.stays.append(Fake())
        if self.is_headless:
            self.stays[-1].head.clear()
        return self.stays[-1]

    def send(self, gateway: Address, frame: Any) -> bool:
        return True

    async def drained(self, gateway: Address) -> None: ...

    def keep(self, to: Address, frame: Any) -> None:
        self.sent.append((to, frame))

    def hear(self, frame: Any, sender: Address = GATEWAY) -> None:
        assert self.staying.hear(Received(sender, frame))

    async def settle(self) -> None:
        # Nothing is done by a thread here, so how far this goes doesn't depend on the machine.
        for _ in range(50):
            await asyncio.sleep(0)

    async def ready(self) -> Fake:
        self.hear(OpenStay(LEASE, 1, 0, SPEC.canonical(), 1000, 1_003_600))
        await self.settle()
        members = (MeshMember(0, b"\x08" * 32, ("127.0.0.1", 99)), MeshMember(1, b"\x09" * 32, None))
        self.hear(JoinStay(LEASE, 0, 0, b"token", members))
        await self.settle()
        return self.stays[-1]

    def said(self, kind: type) -> list[Any]:
        return [frame for _, frame in self.sent if isinstance(frame, kind)]


def test_a_stay_is_raised_joined_and_lent(tmp_path: Path):
    """Key and readiness are told; its intervals may be ordered by its gateway alone, while nothing new is taken."""

    async def main() -> None:
        bench = Bench(tmp_path)
        stay = await bench.ready()
        (opened,) = bench.said(StayOpened)
        assert opened.key == stay.key
        assert stay.done == ["mesh 2 {0: ('127.0.0.1', 99)}", "join 0 token"]
        (ready,) = bench.said(StayReady)
        assert dict(ready.steps) == {"mesh": dict(ready.steps)["mesh"], "ray": 12}
        assert bench.vacancies == [False]
        assert bench.reported[-1] == Serving(bench.reported[-1].offers, (MODEL,))
        bench.engines.start(Start(Digest(b"\x0b" * 32), STRANGER, MODEL, "cluster", interval()))
        assert bench.reported[-1].code == "engine_failed"

    asyncio.run(main())


def test_who_waits_for_its_head_hears_of_another_way_there(tmp_path: Path):
    """A gateway that was killed while machines join has another relay: they are told at once, each way once, and Ray begins once."""

    async def main() -> None:
        bench = Bench(tmp_path)
        bench.is_headless = True
        stay = await bench.ready()
        for port in (99, 98, 98):
            members = (MeshMember(0, b"\x08" * 32, ("127.0.0.1", port)), MeshMember(1, b"\x09" * 32, None))
            bench.hear(JoinStay(LEASE, 0, 0, b"token", members))
            await bench.settle()
        first, second = (f"mesh 2 {{0: ('127.0.0.1', {port})}}" for port in (99, 98))
        assert stay.done == [first, "join 0 token", second]
        assert not bench.said(StayReady)
        stay.head.set()
        await bench.settle()
        assert len(bench.said(StayReady)) == 1

    asyncio.run(main())


def test_what_ends_while_it_waits_for_its_head_is_lowered_at_once(tmp_path: Path):
    """The machine is free for the next, whose stay is its own; nothing is told of the one that is over."""

    async def main() -> None:
        bench = Bench(tmp_path)
        bench.is_headless = True
        stay = await bench.ready()
        bench.hear(EndStay(LEASE, 0))
        await bench.settle()
        assert stay.done[-1] == "close"
        bench.is_headless = False
        second = await bench.ready()
        assert second is not stay
        assert len(bench.said(StayReady)) == 1
        assert not bench.said(StayBroke)

    asyncio.run(main())


def interval(beats: int = 2, seconds: int = 1) -> Interval:
    return Interval(MODEL, 0, seconds, beats, 2, 0, 4_000, b"\x0c" * 32, bytes(32))


async def answered(engine: StayEngine, asked: Interval) -> tuple[tuple[int, ...], str]:
    tokens: list[int] = []
    async for event in engine.submit(asked):
        if isinstance(event, TokenEvent):
            tokens.append(event.token)
        else:
            assert isinstance(event, Finish)
            return tuple(tokens), event.reason
    raise AssertionError("an interval ends")


def test_an_interval_is_answered_by_heartbeats_that_hold_in_an_audit():
    """What an honest machine tells is right, of the asked length, and paid."""

    async def main() -> None:
        told = 0

        def worked() -> None:
            nonlocal told
            told += 1

        engine = StayEngine(MODEL, Fake(), worked, lambda before: True)
        tokens, reason = await answered(engine, interval())
        assert told == 1
        assert wrong(interval(), tokens, reason) is None
        findings, _ = await judge_answer(None, interval(), tokens, reason)
        assert findings.matches == findings.tokens == 4
        assert recount(interval(), tokens) == (0, 10)
        assert [beat.tenant_ms for beat in beats_of(2, tokens)] == [10, 20]

    asyncio.run(main())


def test_one_interval_follows_the_other():
    """While one runs another isn't begun; cancelled, it ends with what it has."""

    async def main() -> None:
        engine = StayEngine(MODEL, Fake(), lambda: None, lambda before: True)
        running = engine.submit(interval(seconds=30))
        events = [asyncio.ensure_future(anext(aiter(running)))]
        await asyncio.sleep(0)
        with pytest.raises(Unfit):
            engine.submit(interval())
        running.cancel()
        finish = await events[0]
        assert isinstance(finish, Finish)
        assert finish.reason == "cancelled"
        assert running.over
        engine.submit(interval())

    asyncio.run(main())


def test_an_interval_that_leaves_one_out_is_not_begun(tmp_path: Path):
    """Each hangs on the heartbeats that came; what its gateway signed for is kept in the machine's folder."""

    async def main() -> None:
        bench = Bench(tmp_path)
        await bench.ready()
        lent = bench.engines.loaded()[MODEL.hex()].engine
        assert isinstance(lent, StayEngine)
        first = interval()
        answer = Answer(*await answered(lent, first))
        order = Order(
            GATEWAY, bytes(20), MODEL, canonical.digest(first), bytes(32), 0, 1, 99, 2**32, bytes(32)
        )
        bench.staying.came(Transcript(order, bytes(65), "cluster", canonical.encode(first), answer))
        bench.staying.came(Transcript(order, bytes(65), "chat", b"", answer))
        head = head_of(order.request, answer.digest())
        lent.submit(first)
        await lent.close()
        said = Heartbeats(MODEL, 10, head)
        bench.hear(Countersign(said, b"\x01" * 65))
        (signed,) = bench.signed
        assert (signed.said, signed.gateway, signed.lease, signed.place) == (said, GATEWAY, LEASE, 1)
        other = StayEngine(MODEL, Fake(), lambda: None, partial(bench.staying.book.follows, MODEL))
        with pytest.raises(Unfit, match="never gave"):
            other.submit(first)
        other.submit(msgspec.structs.replace(first, before=head))
        kept = Countersigned(tmp_path)
        kept.keep(signed)
        kept.keep(msgspec.structs.replace(signed, at_s=signed.at_s + 30))
        assert [it.at_s for it in kept.all()] == [signed.at_s + 30]

    asyncio.run(main())


def test_a_dead_stay_answers_nothing(tmp_path: Path):
    """Its engine fails, the gateway hears why, and the machine is free again."""

    async def main() -> None:
        bench = Bench(tmp_path)
        stay = await bench.ready()
        engine = StayEngine(MODEL, stay, lambda: None, lambda before: True)
        stay.gone.set_result("raylet died")
        await bench.settle()
        (broke,) = bench.said(StayBroke)
        assert (broke.code, broke.detail) == ("died", "raylet died")
        assert stay.done[-1] == "close"
        assert bench.vacancies == [False, True]
        assert bench.reported[-1] == Serving((), ())
        with pytest.raises(EngineFailed):
            engine.submit(interval())

    asyncio.run(main())


def test_what_can_not_begin_says_why(tmp_path: Path):
    """Without wireguard-go, say, the machine isn't held for nothing."""

    async def main() -> None:
        bench = Bench(tmp_path, StayFailed("no-wireguard", "apt-get install wireguard-go"))
        bench.hear(OpenStay(LEASE, 1, 0, SPEC.canonical(), 1000, 1_003_600))
        await bench.settle()
        (broke,) = bench.said(StayBroke)
        assert broke.code == "no-wireguard"
        assert bench.vacancies == [False, True]

    asyncio.run(main())


def test_its_gateway_pauses_reads_its_log_and_ends_it_and_nobody_else(tmp_path: Path):
    """Frames of a stranger change nothing."""

    async def main() -> None:
        bench = Bench(tmp_path)
        stay = await bench.ready()
        bench.hear(PauseStay(LEASE, 0, paused=True), STRANGER)
        bench.hear(AskStayLog(LEASE, 0, 3), STRANGER)
        bench.hear(EndStay(LEASE, 0), STRANGER)
        await bench.settle()
        assert bench.said(StayLogged) == []
        assert len(stay.done) == 2
        bench.hear(PauseStay(LEASE, 0, paused=True))
        await bench.settle()
        bench.hear(PauseStay(LEASE, 0, paused=False))
        bench.hear(AskStayLog(LEASE, 0, 3))
        await bench.settle()
        assert stay.done[2:] == ["freeze", "thaw"]
        assert bench.said(StayLogged) == [StayLogged(LEASE, 0, 3, 9, b"began\n")]
        bench.hear(EndStay(LEASE, 0))
        await bench.settle()
        assert stay.done[-1] == "close"

    asyncio.run(main())


def test_an_order_of_its_gateway_streams_heartbeats(tmp_path: Path):
    """Through the engines, as any work: tokens, then what was produced; stopped early it reports what it has."""

    async def main() -> None:
        bench = Bench(tmp_path)
        running = asyncio.ensure_future(bench.engines.run())
        await bench.ready()
        order = Digest(b"\x0b" * 32)
        bench.engines.start(Start(order, GATEWAY, MODEL, "cluster", interval(seconds=30)))
        await bench.settle()
        bench.engines.stop(Stop(order, report=True))
        await bench.settle()
        assert isinstance(bench.reported[-1], Produced)
        assert bench.reported[-1].answer.reason == "cancelled"
        running.cancel()

    asyncio.run(main())


def test_what_a_stay_has_to_say_reaches_its_gateway_once(tmp_path: Path):
    """Before it is ready as after it, with the rental that it is of."""

    async def main() -> None:
        bench = Bench(tmp_path)
        bench.staying.look()
        stay = await bench.ready()
        stay.unsaid.append(("memory", "out of memory: rent with more"))
        bench.staying.look()
        bench.staying.look()
        assert bench.said(StayTold) == [StayTold(LEASE, 0, "memory", "out of memory: rent with more")]
        stay.silence = {0: 1.25, 2: 40.0}
        bench.staying.look()
        assert bench.said(StayHears) == [StayHears(LEASE, 0, ((0, 1_250), (2, 40_000)))]

    asyncio.run(main())
