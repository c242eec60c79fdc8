"""A provider that serves one validator alone: the drawn one audits it all the same, with what the other hands on, whoever spoils it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from clusterai.audit.adapters.sealing import SealKey, seal
from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Mined, Submit
from clusterai.ledger.core.lease_calls import CommitAudit
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role
from clusterai.protocol.jobs import AskSealed, AskSegment, SealedPart, Segment, SegmentServed
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import Terms, segment_result
from clusterai.protocol.messages import Relay
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.runtime.machine import Linked, Received, Started, Tick
from clusterai.sandbox import BlobStore
from clusterai.sandbox.adapters.wasm import sample
from clusterai.validator.adapters import jobaudits
from clusterai.validator.adapters.jobaudits import Coming, JobAudits
from clusterai.validator.core import jobauditor
from clusterai.validator.core.jobcase import Case
from clusterai.work.batch.adapters import exchange
from clusterai.work.batch.adapters.exchange import part
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.batch.core.outcome import Performed
from clusterai.work.batch.spec import Image, JobSpec, Resources

NETWORK = network_domain(31415, Address(b"\x09" * 20))
GATEWAY, REQUESTER, PROVIDER, AUDITS = (Address(bytes([n]) * 20) for n in (1, 2, 3, 4))
LEASE = Digest(b"\x11" * 32)
SEGMENT = 3
_RELAYED = cast("type[Any]", AskSegment | SegmentServed | AskSealed | SealedPart)
NOW_S = 1_700_000_000


class Provider:
    """A job that was done; `serves` says to whom what is shown."""

    def __init__(self, folder: Path) -> None:
        store = self.store = BlobStore(folder / "there")
        self.spec = JobSpec(
            name="sieve",
            check="wasm",
            image=Image("wasm", store.put(sample("sieve"))),
            argv=("4",),
            fuel=10**9,
            segments=20,
            resources=Resources(time_s=60),
        )
        performer = Performer(store, folder / "ran")
        self.done: Performed = asyncio.run(performer.perform(self.spec))
        self.tree = self.done.commitment()
        before = self.tree.open(SEGMENT - 1)
        start = self.tree.open(0)
        self.shown = Segment(
            self.spec.canonical(), start.state, start.proof, before.state, before.units, before.proof
        )

    @property
    def result(self) -> Digest:
        after = self.tree.open(SEGMENT)
        return segment_result(after.state, after.units)

    def answer(self, ask: AskSegment | AskSealed) -> Any:
        if isinstance(ask, AskSegment):
            return SegmentServed(ask.lease, ask.segment, seal(canonical.encode(self.shown), ask.seal_to))
        found = part(self.store, Digest(ask.content), ask.offset)
        assert found is not None
        total, data = found
        return SealedPart(ask.lease, ask.content, ask.offset, total, seal(data, ask.seal_to))


class Panel:
    """Two validators, linked to one gateway that carries what they say to each other and to the provider."""

    def __init__(self, provider: Provider, folder: Path) -> None:
        self.provider = provider
        self.calls: list[tuple[str, Any]] = []
        self.bend: Callable[[Any], Any] = lambda frame: frame
        """what becomes of what the one hands the other"""
        self.handed: list[Any] = []
        self.asked: list[Any] = []
        """by the starved one, of the other"""
        self.elsewhere: list[Relay] = []
        self.owners = {name: Key(keccak(name.encode())).address for name in ("had", "starved")}
        self.audits = {name: self._validator(name, folder / name) for name in self.owners}

    def _validator(self, name: str, folder: Path) -> JobAudits:
        hot = Key(keccak(name.encode() + b" hot"))
        return JobAudits(
            folder,
            self.owners[name],
            AUDITS,
            Address(b"\x05" * 20),
            NETWORK,
            hot.sign,
            hot.secret(),
            SealKey.fresh(),
            "NORMAL",
            lambda _, frame: asyncio.get_running_loop().call_soon(self._carry, name, frame),
            lambda submit: self._submitted(name, submit),
            ticks=False,
        )

    def _submitted(self, name: str, submit: Submit) -> None:
        self.calls.append((name, submit.call))
        mined = Mined(submit.key, ZERO_DIGEST, 1)
        asyncio.get_running_loop().call_soon(self.audits[name].hear, mined)

    def _carry(self, name: str, relay: Relay) -> None:
        if relay.to == PROVIDER:
            ask = canonical.decode(relay.body, _RELAYED)
            if name == "had":
                body = canonical.encode(self.provider.answer(ask))
                self.audits[name].hear(Received(GATEWAY, Relay(PROVIDER, self.owners[name], body)))
            return
        to = next((it for it, owner in self.owners.items() if owner == relay.to), None)
        if to is None:
            self.elsewhere.append(relay)
            return
        frame, body = canonical.decode(relay.body, _RELAYED), relay.body
        if name == "starved":
            self.asked.append(frame)
        else:
            self.handed.append(frame)
            body = canonical.encode(self.bend(frame))
        self.audits[to].hear(Received(GATEWAY, Relay(self.owners[name], relay.to, body)))

    def told(self, *happened: Any) -> None:
        for audits in self.audits.values():
            for event in happened:
                audits.hear(event)

    async def play(self, until: Callable[[], bool], by_s: int = NOW_S + 600) -> None:
        """The `starved` one is drawn; the other has looked, because it was said before that nothing is served."""
        root, terms = self.provider.tree.root, self._terms()
        for name, owner in self.owners.items():
            hot = Key(keccak(name.encode() + b" hot")).address
            self.told(
                events.Registered(owner, Role.VALIDATOR, ZERO_DIGEST),
                events.Delegated(owner, hot),
                events.Bonded(owner, 1000, 1000),
                events.Enlisted(0, owner, 1000),
            )
        self.told(
            events.Registered(GATEWAY, Role.GATEWAY, ZERO_DIGEST),
            events.LeaseOpened(LEASE, REQUESTER, PROVIDER, terms),
            events.LeaseCommitted(
                LEASE, root, len(self.provider.done.units), ZERO_DIGEST, 1, 1, 1, ZERO_DIGEST
            ),
            events.LeaseDrawn(LEASE, ZERO_DIGEST, True, SEGMENT),
            events.AuditorDrawn(LEASE, 0, self.owners["starved"], by_s, by_s),
            events.WithheldReported(LEASE, self.owners["starved"], 1, 3, by_s),
            events.Block(1, NOW_S),
            Started(),
            Linked(GATEWAY),
        )
        try:
            async with asyncio.timeout(300):
                while not until():
                    self.told(Tick())
                    await asyncio.sleep(0.02)
        finally:
            for audits in self.audits.values():
                await audits.close()

    def _terms(self) -> Terms:
        return Terms(
            requester=REQUESTER,
            provider=PROVIDER,
            spec=self.provider.spec.digest(),
            resources=ZERO_DIGEST,
            input=ZERO_DIGEST,
            expected=ZERO_DIGEST,
            determinism=1,
            segments=20,
            units=10**9,
            compensation_wei=1000,
            audit_fee_wei=10,
            start_by_s=NOW_S,
            deadline_s=NOW_S + 100,
            nonce=ZERO_DIGEST,
        )

    def committed(self) -> bool:
        return any(who == "starved" and isinstance(call, CommitAudit) for who, call in self.calls)

    @property
    def case(self) -> Case:
        return self.audits["starved"].auditor.cases[LEASE]

    def seal(self, data: bytes) -> bytes:
        """To the starved one, as the other one does."""
        asked = next(it for it in self.asked if isinstance(it, AskSegment))
        return seal(data, asked.seal_to)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Provider:
    return Provider(tmp_path_factory.mktemp("provider"))


@pytest.fixture
def panel(provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Panel:
    monkeypatch.setattr(jobauditor, "ASK_EVERY_S", 0.05)
    monkeypatch.setattr(exchange, "PATIENCE_S", 0.05)
    return Panel(provider, tmp_path)


def test_who_is_starved_audits_with_what_another_hands_on(panel: Panel) -> None:
    """It commits to what the segment comes to, and has seen no frame of the provider's."""
    asyncio.run(panel.play(panel.committed))
    assert panel.case.result == panel.provider.result
    assert {type(it) for it in panel.handed} >= {SegmentServed, SealedPart}


def test_contents_that_are_something_else_are_not_taken(panel: Panel) -> None:
    """Who hands them on is asked no more, and nothing is computed from them."""

    def bend(frame: Any) -> Any:
        if isinstance(frame, SealedPart):
            return msgspec.structs.replace(
                frame, sealed=panel.seal(b"x" * min(frame.total, 1000)), total=1000
            )
        return frame

    panel.bend = bend
    asyncio.run(panel.play(lambda: bool(panel.case.sources.spurned)))
    assert panel.case.result is None
    assert panel.case.sources.spurned == {panel.owners["had"]}


def test_contents_that_come_byte_by_byte_do_not_come(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part is right, and goes on where the one before ended: it would take days."""
    monkeypatch.setattr(jobaudits, "MEMBER_S", 0.5)
    store = panel.provider.store

    def bend(frame: Any) -> Any:
        if isinstance(frame, SealedPart):
            byte = store.read_at(Digest(frame.content), frame.offset, 1)
            return msgspec.structs.replace(frame, sealed=panel.seal(byte))
        return frame

    panel.bend = bend
    asyncio.run(panel.play(lambda: bool(panel.case.sources.spurned)))
    assert panel.case.result is None
    assert panel.case.sources.spurned == {panel.owners["had"]}


def test_the_beginning_of_something_else_is_not_taken(panel: Panel) -> None:
    """It has to lead to what was committed to, whoever shows it."""
    false = msgspec.structs.replace(panel.provider.shown, state=keccak(b"something else"))

    def bend(frame: Any) -> Any:
        if isinstance(frame, SegmentServed):
            return msgspec.structs.replace(frame, sealed=panel.seal(canonical.encode(false)))
        return frame

    panel.bend = bend
    asyncio.run(panel.play(lambda: bool(panel.case.sources.spurned)))
    assert panel.case.result is None


def test_a_fetch_lives_on_what_it_is_for_and_ends_in_time() -> None:
    """Else who hands over one lease's contents byte by byte lives on the parts that come for another one, and who hands over a lot of
    them keeps others from being tried."""
    mine, others = Digest(b"\x01" * 32), Digest(b"\x02" * 32)

    async def waits() -> list[float | None]:
        begun_s = asyncio.get_running_loop().time()
        async with asyncio.timeout(1000) as clock:
            coming = Coming(PROVIDER, clock, begun_s, patience_s=10, within_s=15)
            coming.wanted = {mine: 4 << 20}
            coming.more(others, 1 << 30)
            found = [clock.when()]
            for _ in range(2):
                coming.more(mine, 4 << 20)
                await asyncio.sleep(0)
                found.append(clock.when())
        return [None if it is None else round(it - begun_s) for it in found]

    assert asyncio.run(waits()) == [1000, 14, 15]


@pytest.mark.parametrize("who", ["a stranger", "the requester", "in another's name", "a member"])
def test_only_members_are_handed_anything(panel: Panel, who: str) -> None:
    """Neither party of the lease, also with a seat, nobody without one, and nobody who can't sign for who asks."""
    key = Key(keccak(b"asker"))
    asker = {"the requester": REQUESTER, "in another's name": Address(b"\x07" * 20)}.get(who, key.address)
    seats = [] if who == "a stranger" else [events.Enlisted(1, asker, 1000)]
    signs = [] if who == "in another's name" else [events.Delegated(asker, key.address)]
    panel.told(events.Registered(asker, Role.VALIDATOR, ZERO_DIGEST), *signs, *seats)
    content = panel.provider.shown.state
    box = SealKey.fresh()
    had = panel.owners["had"]
    asks: list[AskSegment | AskSealed] = [
        AskSegment(asker, had, LEASE, SEGMENT, box.public, bytes(65)),
        AskSealed(asker, had, LEASE, content, 0, box.public, bytes(65)),
        AskSealed(asker, had, LEASE, bytes(32), 0, box.public, bytes(65)),
        AskSegment(asker, had, LEASE, SEGMENT + 1, box.public, bytes(65)),
    ]

    def committed() -> bool:
        if not panel.committed():
            return False
        for ask in asks:
            signed = msgspec.structs.replace(ask, signature=key.sign(ask.signing_digest(NETWORK)))
            relay = Relay(asker, had, canonical.encode(signed))
            panel.audits["had"].hear(Received(GATEWAY, relay))
        return True

    asyncio.run(panel.play(committed))
    given = [canonical.decode(it.body, _RELAYED) for it in panel.elsewhere if it.to == asker]
    shown = [it for it in given if isinstance(it, SegmentServed | SealedPart)]
    assert [type(it) for it in shown] == ([SegmentServed, SealedPart] if who == "a member" else [])


def test_a_member_that_asks_without_end_is_answered_no_more(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer is sealed anew: one member could keep another one at it, and out of its own audits."""
    monkeypatch.setattr(jobauditor, "MOST_HANDS", 3)
    key, had, box = Key(keccak(b"asker")), panel.owners["had"], SealKey.fresh()
    panel.told(
        events.Registered(key.address, Role.VALIDATOR, ZERO_DIGEST),
        events.Delegated(key.address, key.address),
        events.Enlisted(1, key.address, 1000),
    )
    ask = AskSegment(key.address, had, LEASE, SEGMENT, box.public, bytes(65))
    ask = msgspec.structs.replace(ask, signature=key.sign(ask.signing_digest(NETWORK)))

    def committed() -> bool:
        if not panel.committed():
            return False
        for _ in range(10):
            panel.audits["had"].hear(Received(GATEWAY, Relay(key.address, had, canonical.encode(ask))))
        return True

    asyncio.run(panel.play(committed))
    given = [canonical.decode(it.body, _RELAYED) for it in panel.elsewhere if it.to == key.address]
    assert sum(isinstance(it, SegmentServed) for it in given) == 3
