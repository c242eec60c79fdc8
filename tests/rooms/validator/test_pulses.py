"""Who brings drand's pulses to the chain, and what happens where drand or its relays are away."""

import asyncio
from hashlib import sha256
from typing import Any

import httpx
import msgspec
from py_arkworks_bls12381 import G1Point, G2Point, Scalar

from clusterai.audit.core import drand
from clusterai.audit.core.drand import Pulse
from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Mined, RecordLapsed, RecordPulse, Reverted, Submit
from clusterai.ledger.core.rules import LOCAL, DrandRules
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.runtime.machine import Tick
from clusterai.validator.adapters.pulses import PulseBringer
from clusterai.validator.core.pulses import Fetch, Fetched, NotFetched, Pulses

SECRET = Scalar.from_be_bytes_mod_order(sha256(b"pulses").digest())
DRAND = DrandRules(
    chain="cd" * 32,
    key=(G2Point() * SECRET).to_xy_bytes_be().hex(),
    genesis_s=1_600_000_000,
    period_s=3,
    margin_s=6,
)
PROVIDER = Address(b"p" * 20)
WORD = Digest(b"w" * 32)
EPOCH_S, WINDOW_S = 15, 120
NOW_S = 1_700_000_000


def pulse(number: int) -> Pulse:
    suite = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
    point = G1Point.hash_to_curve(sha256(number.to_bytes(8)).digest(), suite) * SECRET
    return Pulse(number, bytes(point.to_compressed_bytes()))


def committed(epoch: int, number: int) -> events.EpochCommitted:
    return events.EpochCommitted(PROVIDER, epoch, ZERO_DIGEST, 1, 1, number, 1_000_000)


def lease(number: int) -> events.LeaseCommitted:
    kind = events.LeaseCommitted
    values: Any = {it.name: 0 if it.type is int else ZERO_DIGEST for it in msgspec.structs.fields(kind)}
    return msgspec.structs.replace(kind(**values), round=number)


class Chain:
    """Validators that hear the same blocks, and a clock; relays serve every pulse whose time has come unless `down`."""

    def __init__(self, validators: int = 1) -> None:
        self.now_s = float(NOW_S)
        self.block = 1
        self.down = False
        self.machines = [
            Pulses(Address(bytes([at]) * 20), DRAND, EPOCH_S, WINDOW_S) for at in range(validators)
        ]
        self.calls: list[tuple[float, int, Any]] = []
        self.number = DRAND.round_of(NOW_S // EPOCH_S, EPOCH_S)
        """the round that draws from what is committed at the beginning"""

    def tell(self, *told: Any) -> None:
        self.block += 1
        for event in (*told, events.Block(self.block, int(self.now_s))):
            for at, machine in enumerate(self.machines):
                self._perform(at, machine.step(event, self.now_s))

    def play(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_s += 1
            for at, machine in enumerate(self.machines):
                self._perform(at, machine.step(Tick(), self.now_s))

    def _perform(self, at: int, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Fetch):
                assert self.now_s >= DRAND.time_of(effect.round), (
                    "before its time there is no pulse to ask for"
                )
                away = NotFetched(effect.round, "nobody answers")
                answer = away if self.down else Fetched(pulse(effect.round))
                self._perform(at, self.machines[at].step(answer, self.now_s))
            else:
                assert isinstance(effect, Submit)
                assert isinstance(effect.call, RecordPulse | RecordLapsed)
                self.calls.append((self.now_s, at, effect.call))
                if len(self.calls) == 1:
                    self.tell(events.BeaconRecorded(effect.call.round, WORD))


def test_one_of_many_brings_the_pulse() -> None:
    """The validator whose turn it is pays; the others hear of it in time."""
    chain = Chain(validators=5)
    chain.tell(committed(NOW_S // EPOCH_S - 1, chain.number))
    chain.play(60)
    ((at_s, _, call),) = chain.calls
    assert call == drand.call(pulse(chain.number))
    assert DRAND.time_of(chain.number) <= at_s <= DRAND.time_of(chain.number) + EPOCH_S / 2


def test_without_drand_the_chains_word_is_recorded() -> None:
    """While relays are away a person is told why; an epoch after the pulse's time the chain's randomness is called for."""
    chain = Chain()
    chain.down = True
    chain.tell(committed(NOW_S // EPOCH_S - 1, chain.number))
    chain.play(80)
    (machine,) = chain.machines
    ((at_s, _, call),) = chain.calls
    assert call == RecordLapsed(chain.number)
    assert at_s > DRAND.time_of(chain.number) + EPOCH_S
    assert machine.trouble == ""
    assert machine.waiting() == []


def test_trouble_is_told_while_a_pulse_is_missing() -> None:
    """Who looks at the validator sees which round is missing and what the relays said."""
    chain = Chain()
    chain.down = True
    chain.tell(committed(NOW_S // EPOCH_S - 1, chain.number))
    chain.play(DRAND.time_of(chain.number) - NOW_S + 14)
    assert chain.machines[0].trouble == f"round {chain.number}: nobody answers"


def test_an_undone_pulse_is_brought_again() -> None:
    """A reorganisation takes the beacon away; what waits for it waits again."""
    chain = Chain()
    chain.tell(committed(NOW_S // EPOCH_S - 1, chain.number))
    before = chain.block
    chain.play(50)
    assert len(chain.calls) == 1
    chain.machines[0].step(events.RolledBack(before), chain.now_s)
    assert chain.machines[0].waiting() == [chain.number]


def test_a_refused_call_is_made_again_later() -> None:
    """The chain's clock may stand behind the world's: then it is too early there, and not for ever."""
    chain = Chain()
    chain.calls.append((0.0, 0, None))  # the chain records nothing by itself
    chain.tell(committed(NOW_S // EPOCH_S - 1, chain.number))
    chain.play(DRAND.time_of(chain.number) - NOW_S + 19)
    brought = len(chain.calls)
    assert brought > 1
    chain.machines[0].step(Reverted(f"pulse-{chain.number}", "TooEarly"), chain.now_s)
    chain.play(5)
    assert len(chain.calls) == brought
    chain.play(8)
    assert len(chain.calls) == brought + 1
    assert chain.machines[0].step(Mined(f"pulse-{chain.number}", ZERO_DIGEST, chain.block), chain.now_s) == []


def test_what_nobody_can_judge_is_not_paid_for() -> None:
    """A round whose receipts are past their window is left alone after a long absence; a lease's is not."""
    chain = Chain()
    (machine,) = chain.machines
    old = DRAND.round_of(NOW_S // EPOCH_S - 100, EPOCH_S)
    older = DRAND.round_of(NOW_S // EPOCH_S - 200, EPOCH_S)
    for event in (committed(1, old), lease(older), events.Block(1, NOW_S - 900)):
        assert machine.step(event, chain.now_s) == [], "nothing is done before the chain has been read"
    chain.tell()
    chain.play(30)
    assert [call for _, _, call in chain.calls] == [RecordLapsed(older)]


def test_a_lying_relay_is_passed_over_and_the_pulse_is_submitted() -> None:
    """The process asks its relays in turn, believes none, and submits what verifies."""
    number = DRAND.round_of(NOW_S // EPOCH_S, EPOCH_S)
    clock = [float(NOW_S)]
    submitted: list[Submit] = []

    def serve(request: httpx.Request) -> httpx.Response:
        given = pulse(number if request.url.host == "honest" else number + 1)
        body = {"round": number, "signature": given.signature.hex()}
        return httpx.Response(200, content=msgspec.json.encode(body))

    async def run() -> None:
        rules = msgspec.structs.replace(LOCAL, beacon=DRAND)
        async with httpx.AsyncClient(transport=httpx.MockTransport(serve)) as client:
            heard = asyncio.Event()

            def submit(effect: Submit) -> None:
                submitted.append(effect)
                heard.set()

            relays = ("http://lying", "http://honest")
            me = Address(b"v" * 20)
            bringer = PulseBringer(me, rules, relays, client, submit, lambda: clock[0])
            assert not bringer.hear(committed(NOW_S // EPOCH_S - 1, number))
            clock[0] = float(DRAND.time_of(number) + EPOCH_S)
            assert not bringer.hear(events.Block(1, int(clock[0])))
            async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
                running = tasks.create_task(bringer.run())
                await heard.wait()
                running.cancel()
            assert not bringer.hear(Mined("job-tick", ZERO_DIGEST, 1))
            assert bringer.hear(Mined(submitted[0].key, ZERO_DIGEST, 1))

    asyncio.run(run())
    (only,) = submitted
    assert isinstance(only.call, RecordPulse)
    assert only.call == drand.call(pulse(number))


def test_where_the_chain_draws_nothing_is_brought() -> None:
    """On a network with the chain's own beacon the bringer stays silent."""

    async def run() -> None:
        async with httpx.AsyncClient() as client:
            bringer = PulseBringer(PROVIDER, LOCAL, ("http://nobody",), client, lambda _: None)
            assert not bringer.hear(committed(1, 1))
            assert not bringer.hear(events.Block(1, NOW_S))
            assert bringer.trouble == ""

    asyncio.run(run())
