"""DrandBeacon on a chain with EIP-2537: it is its twin, and a Court and Audits that ask it draw by drand's pulses."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from py_arkworks_bls12381 import G1Point, G2Point, Scalar

from clusterai.audit.core import drand, segments
from clusterai.audit.core.drand import Pulse
from clusterai.audit.core.draw import drawn
from clusterai.ledger.adapters.embedded.genesis import BrokenGenesis, genesis_of
from clusterai.ledger.artifacts import load
from clusterai.ledger.core import calls
from clusterai.ledger.core.deploy import local_plan
from clusterai.ledger.core.events import BeaconRecorded, EpochCommitted, Event, LeaseDrawn
from clusterai.ledger.core.rules import QUICKNET, BadRules, DrandRules, Rules
from clusterai.ledger.core.twin import BlockContext, Refused, TwinChain
from clusterai.protocol import merkle
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.signing import Key
from tests.contracts.anvil import AnvilChain, anvil
from tests.contracts.cast import (
    CHAIN_ID,
    DEPLOYER,
    HOTS,
    OWNERS,
    PROVIDER,
    RULES,
    STRANGER,
    Differ,
    consented,
    receipts,
)
from tests.contracts.leasecast import LeasePair, job

SECRET = Scalar.from_be_bytes_mod_order(sha256(b"a drand network of our own").digest())
OWN = DrandRules(
    chain="ab" * 32,
    key=(G2Point() * SECRET).to_xy_bytes_be().hex(),
    genesis_s=1_600_000_000,
    period_s=3,
    margin_s=3,
)
"""A network whose secret we know, so that any round can be signed."""
VECTORS = Path(__file__).parents[1] / "vectors" / "drand.json"


def ruled(beacon: DrandRules) -> Rules:
    """With a window that leaves time for a draw without drand."""
    return msgspec.structs.replace(RULES, beacon=beacon, window_s=120, unbond_delay_s=240)


def pulse(number: int, secret: Scalar = SECRET) -> Pulse:
    suite = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
    point = G1Point.hash_to_curve(sha256(number.to_bytes(8)).digest(), suite) * secret
    return Pulse(number, bytes(point.to_compressed_bytes()))


class DrandPair(LeasePair):
    """The contracts on anvil and their twin, doing the same, a second after the other."""

    def __init__(self, chain: AnvilChain, rules: Rules, start_s: int) -> None:
        self.chain = chain
        self.twin = TwinChain(CHAIN_ID, chain.plan.addresses, DEPLOYER.address, rules, verify=drand.is_signed)
        self.rules = rules
        self.now_s, self.number = start_s, 1

    def do(self, call: calls.Call, sender: Key = STRANGER) -> tuple[Event, ...] | Refused:
        self.now_s += 1
        block = BlockContext(0, self.now_s, bytes(32))
        bytecode = self.chain.execute(call, sender.address, block)
        block = msgspec.structs.replace(block, prevrandao=self.chain.prevrandao)
        twin = self.twin.execute(call, sender.address, block)
        if twin != bytecode:
            raise Differ(f"{call}: twin {twin}, bytecode {bytecode}")
        return twin

    def expect(self, call: calls.Call, sender: Key = STRANGER) -> tuple[Event, ...]:
        return super().expect(call, sender)

    def refused(self, call: calls.Call, sender: Key = STRANGER) -> str:
        return super().refused(call, sender)

    def until(self, at_s: int) -> None:
        """The next call stands in a block of this second."""
        assert at_s > self.now_s, "time goes on"
        self.now_s = at_s - 1

    def provider(self) -> None:
        registry = self.twin.world.addresses.registry
        self.expect(calls.Transfer(OWNERS["ann"].address, 10_000), DEPLOYER)
        for call in (
            calls.Register(PROVIDER, ZERO_DIGEST),
            consented(OWNERS["ann"], HOTS["ann"]),
            calls.Approve(registry, 10_000),
            calls.Bond(10_000),
        ):
            self.expect(call, OWNERS["ann"])

    def committed_epoch(self, count: int = 40) -> tuple[EpochCommitted, list[Digest]]:
        """The last epoch's receipts are committed now."""
        epoch = (self.now_s + 1) // self.rules.epoch_s - 1
        leaves = receipts("ann", epoch, count)
        call = calls.CommitEpoch(epoch, merkle.root(leaves), count, 1_000)
        (event,) = self.expect(call, HOTS["ann"])
        assert isinstance(event, EpochCommitted)
        return event, leaves


START_S = 1_700_000_010


@pytest.fixture(scope="module")
def module_chain() -> Iterator[AnvilChain]:
    with anvil(local_plan(load, DEPLOYER.address, ruled(OWN)), DEPLOYER, CHAIN_ID, START_S - 1_000) as chain:
        yield chain


@pytest.fixture
def pair(module_chain: AnvilChain) -> Iterator[DrandPair]:
    """Every test begins with the contracts just deployed."""
    mark = module_chain.ask("evm_snapshot")
    yield DrandPair(module_chain, ruled(OWN), START_S)
    module_chain.ask("evm_revert", mark)


def test_a_commitment_is_drawn_by_the_pulse_behind_its_epoch(pair: DrandPair) -> None:
    """Nothing is drawn until the pulse is there; then contract, twin and auditors draw the same receipts by it."""
    pair.provider()
    event, leaves = pair.committed_epoch()
    end_s = (pair.now_s // pair.rules.epoch_s + 1) * pair.rules.epoch_s
    assert OWN.time_of(event.round) > end_s + OWN.margin_s >= OWN.time_of(event.round - 1)
    right = drand.call(pulse(event.round))
    assert pair.refused(right) == "TooEarly"
    pair.until(OWN.time_of(event.round))
    (recorded,) = pair.expect(right)
    word = Digest(keccak(sha256(pulse(event.round).signature).digest() + event.round.to_bytes(8)))
    assert recorded == BeaconRecorded(event.round, word)
    assert pair.refused(right) == "AlreadyRecorded"
    assert pair.chain.gas_used < 60_000
    shown = drawn(word, OWNERS["ann"].address, event.epoch, merkle.root(leaves), len(leaves), event.rate_ppm)
    asked = [pair.twin.court.drawn(OWNERS["ann"].address, event.epoch, at) for at in range(len(leaves))]
    assert tuple(at for at, is_drawn in enumerate(asked) if is_drawn) == shown
    assert 0 < len(shown) < len(leaves)


def test_what_drand_did_not_sign_is_refused(pair: DrandPair) -> None:
    """Another round's signature, another network's, the other point, the identity, no point at all: none is a beacon."""
    pair.provider()
    event, _ = pair.committed_epoch()
    number = event.round
    pair.until(OWN.time_of(number))
    other = drand.call(pulse(number + 1)).signature
    assert pair.refused(calls.RecordPulse(number, other)) == "FalsePulse"
    assert pair.refused(drand.call(pulse(number, SECRET + SECRET))) == "FalsePulse"
    nothing = calls.G1Point(ZERO_DIGEST, ZERO_DIGEST, ZERO_DIGEST, ZERO_DIGEST)
    assert pair.refused(calls.RecordPulse(number, nothing)) == "FalsePulse"
    bent = msgspec.structs.replace(other, y_b=Digest(keccak(other.y_b)))
    assert pair.refused(calls.RecordPulse(number, bent)) == "PairingFailed"
    beyond = msgspec.structs.replace(other, x_a=Digest(b"\xff" * 32))
    assert pair.refused(calls.RecordPulse(number, beyond)) == "PairingFailed"
    outside = calls.G1Point(
        ZERO_DIGEST,
        Digest((4).to_bytes(32)),
        Digest(bytes(16) + bytes.fromhex("0a989badd40d6212b33cffc3f3763e9b")),
        Digest(bytes.fromhex("c760f988c9926b26da9dd85e928483446346b8ed00e1de5d5ea93e354abe706c")),
    )
    assert pair.refused(calls.RecordPulse(number, outside)) == "PairingFailed"
    assert pair.refused(drand.call(pulse(number + 1))) == "DrawsNothing"
    assert pair.refused(drand.call(pulse(0 + 2**32 - 1))) == "DrawsNothing"
    assert pair.refused(calls.RecordPulse(0, other)) == "DrawsNothing"
    assert pair.refused(calls.Tick()) == ""


def test_without_drand_the_chain_draws_after_an_epoch(pair: DrandPair) -> None:
    """A pulse that nobody brings within an epoch is too late, and the chain's randomness takes its place, once."""
    pair.provider()
    event, _ = pair.committed_epoch()
    committed_s = pair.now_s
    last_s = OWN.time_of(event.round) + pair.rules.epoch_s
    pair.until(last_s)
    assert pair.refused(calls.RecordLapsed(event.round)) == "TooEarly"
    assert pair.refused(drand.call(pulse(event.round))) == "TooLate"
    (recorded,) = pair.expect(calls.RecordLapsed(event.round))
    assert recorded == BeaconRecorded(
        event.round, Digest(keccak(pair.chain.prevrandao + event.round.to_bytes(8)))
    )
    assert pair.refused(calls.RecordLapsed(event.round)) == "AlreadyRecorded"
    assert pair.refused(calls.RecordLapsed(event.round + 1)) == "DrawsNothing"
    time_left_s = committed_s + pair.rules.window_s - 3 * pair.rules.answer_s - pair.now_s
    assert time_left_s >= pair.rules.epoch_s, "to find out what is missing, before the last challenge"


def test_a_lease_is_drawn_by_the_pulse_behind_its_epoch(pair: DrandPair) -> None:
    """A lease's segment and auditor follow from drand's word as from the chain's, and wait for it."""
    pair.populate()
    one = pair.committed(job(pair, "drawn"))
    audit = pair.twin.audits.audit(one.lease)
    assert pair.refused(calls.DrawLease(one.lease)) == "BeaconPending"
    pair.until(OWN.time_of(audit.round))
    (recorded,) = pair.expect(drand.call(pulse(audit.round)))
    assert isinstance(recorded, BeaconRecorded)
    event, *_ = pair.expect(calls.DrawLease(one.lease))
    assert isinstance(event, LeaseDrawn)
    found = segments.draw(
        recorded.beacon, Digest(one.terms.spec), one.work.root, one.lease, 4, audit.rate_ppm
    )
    assert (event.seed, event.audited, event.segment) == (found.seed, found.audited, found.segment)


def test_recorded_pulses_of_quicknet_draw() -> None:
    """The League of Entropy's own rounds go through Court and contract, from the commitment to the draw."""
    for recorded in msgspec.json.decode(VECTORS.read_bytes()):
        number = recorded["round"]
        # An epoch of 15 s and a margin such that this round is the first behind it.
        time_s = QUICKNET.time_of(number)
        end_s = (time_s - 4) // RULES.epoch_s * RULES.epoch_s
        quicknet = msgspec.structs.replace(QUICKNET, margin_s=time_s - 1 - end_s)
        rules = ruled(quicknet)
        plan = local_plan(load, DEPLOYER.address, rules)
        with anvil(plan, DEPLOYER, CHAIN_ID, end_s - 600) as chain:
            pair = DrandPair(chain, rules, end_s - 8)
            pair.provider()
            event, _ = pair.committed_epoch()
            assert event.round == number
            pair.until(time_s)
            (told,) = pair.expect(drand.call(Pulse(number, bytes.fromhex(recorded["signature"]))))
            word = keccak(bytes.fromhex(recorded["randomness"]) + number.to_bytes(8))
            assert told == BeaconRecorded(number, Digest(word))
            assert pair.twin.court.beacon_of(OWNERS["ann"].address, event.epoch) == word


def test_rules_that_leave_no_time_are_refused() -> None:
    """A window in which the chain's word could come after the last challenge is no window; nor does pyrevm know curves."""
    short = msgspec.structs.replace(ruled(OWN), window_s=74)
    with pytest.raises(BadRules, match="75 at least"):
        local_plan(load, DEPLOYER.address, short)
    with pytest.raises(BrokenGenesis, match="leave `beacon` out of the rules"):
        genesis_of(local_plan(load, DEPLOYER.address, ruled(OWN)))
