"""Who appears in the contract tests: an owner and a hot key each, channels between them, and two equal chains."""

from typing import Any

import msgspec
from eth_hash.auto import keccak

from clusterai.ledger.artifacts import load
from clusterai.ledger.core import calls
from clusterai.ledger.core.deploy import local_plan
from clusterai.ledger.core.events import Event
from clusterai.ledger.core.rules import LOCAL, AuditRules, DeliveryRules, DisputeRules, Rules
from clusterai.ledger.core.twin import BlockContext, Refused, TwinChain
from clusterai.ledger.core.twin.state import UINT256_MAX
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import (
    ChannelConfig,
    Clearance,
    Verdict,
    Voucher,
    channels_domain,
    court_domain,
    network_domain,
    signing_digest,
)
from tests.contracts.bytecode import CHAIN_ID, BytecodeChain

PROVIDER, GATEWAY, VALIDATOR = 1, 2, 4
RULES = Rules(
    epoch_s=LOCAL.epoch_s,
    window_s=LOCAL.window_s,
    unbond_delay_s=LOCAL.unbond_delay_s,
    audit_rate_ppm=500_000,
    bounty_bps=LOCAL.bounty_bps,
    answer_s=LOCAL.answer_s,
    challenge_bond_wei=1_000,
    # A hundredth of the stakes here is about the least bond, so that either decides somewhere.
    audits=AuditRules(bond_wei=500, bond_ppm=10_000, open_s=10),
    disputes=DisputeRules(bond_wei=700),
    deliveries=DeliveryRules(bond_wei=300),
)


def key(name: str) -> Key:
    return Key(keccak(name.encode()))


DEPLOYER = key("deployer")
OWNERS = {name: key(name) for name in ("ann", "bob", "gate", "val", "vic", "vow")}
"""ann and bob provide, gate is a gateway, val, vic and vow validate."""
HOTS = {name: key(name + " hot") for name in OWNERS}
PAYER, STRANGER = key("payer"), key("stranger")
EVERYONE = {
    "deployer": DEPLOYER,
    **OWNERS,
    **{f"{name} hot": hot for name, hot in HOTS.items()},
    "payer": PAYER,
    "stranger": STRANGER,
}
KEYS = {one.address: one for one in EVERYONE.values()}
PLAN = local_plan(load, DEPLOYER.address, RULES)
AT = PLAN.addresses
CHANNELS_DOMAIN = channels_domain(CHAIN_ID, AT.channels)
NETWORK_DOMAIN = network_domain(CHAIN_ID, AT.registry)
COURT_DOMAIN = court_domain(CHAIN_ID, AT.court)
START_S = 1_700_000_010


def channel(
    payer: Key, receiver: Address, authorizer: Address | None = None, salt: int = 0, own: bool = False
) -> ChannelConfig:
    """A channel of 15 minutes' delay; with `own` the payer itself signs vouchers (ERC-1271 form)."""
    return ChannelConfig(
        payer=payer.address,
        payer_authorizer=ZERO_ADDRESS if own else payer.address,
        receiver=receiver,
        receiver_authorizer=authorizer or receiver,
        token=AT.token,
        withdraw_delay_s=900,
        salt=salt.to_bytes(32),
    )


CHANNEL_POOL = (
    channel(HOTS["gate"], OWNERS["ann"].address, HOTS["ann"].address),
    channel(PAYER, OWNERS["ann"].address, salt=1),
    channel(HOTS["gate"], OWNERS["bob"].address),
    channel(PAYER, HOTS["bob"].address, salt=2),
    channel(PAYER, OWNERS["gate"].address, HOTS["gate"].address, own=True),
    channel(PAYER, STRANGER.address),
)


def voucher_signature(config: ChannelConfig, amount: int, signer: Key) -> bytes:
    voucher = Voucher(config.channel_id(CHANNELS_DOMAIN), amount)
    return signer.sign(signing_digest(voucher, CHANNELS_DOMAIN))


def claim_row(
    config: ChannelConfig, total: int, ceiling: int | None = None, signer: Key | None = None
) -> calls.VoucherClaim:
    ceiling = total if ceiling is None else ceiling
    signature = voucher_signature(config, ceiling, signer or KEYS[Address(config.payer)])
    return calls.VoucherClaim(config, ceiling, signature, total)


def judged(statement: Verdict | Clearance, signer: Key) -> bytes:
    return signer.sign(signing_digest(statement, COURT_DOMAIN))


def consented(owner: Key, hot: Key, signer: Key | None = None) -> calls.Delegate:
    return calls.delegate(owner.address, hot.address, (signer or hot).sign, NETWORK_DOMAIN)


def receipts(provider: str, epoch: int, count: int) -> list[Digest]:
    """Leaves of an epoch, as the tree takes them."""
    return [Digest(keccak(f"{provider} {epoch} {i}".encode())) for i in range(count)]


class Differ(AssertionError):
    """The twin and the bytecode disagree about {call}: {twin} and {bytecode}."""


class Pair:
    """The bytecode and its twin, doing the same; a difference is an error at once."""

    def __init__(self) -> None:
        self.bytecode = BytecodeChain(PLAN)
        self.twin = TwinChain(CHAIN_ID, AT, DEPLOYER.address, RULES)
        self.now_s = START_S
        self.number = 1

    def block(self) -> BlockContext:
        return BlockContext(self.number, self.now_s, keccak(self.number.to_bytes(8)))

    def advance(self, seconds: int) -> None:
        self.now_s += seconds
        self.number += 1

    def do(self, call: calls.Call, sender: Key) -> tuple[Event, ...] | Refused:
        twin = self.twin.execute(call, sender.address, self.block())
        bytecode = self.bytecode.execute(call, sender.address, self.block())
        if twin != bytecode:
            raise Differ(f"{call}: twin {twin}, bytecode {bytecode}")
        self.number += 1
        return twin

    def expect(self, call: calls.Call, sender: Key) -> tuple[Event, ...]:
        outcome = self.do(call, sender)
        assert not isinstance(outcome, Refused), f"{call} was refused: {outcome.reason}"
        return outcome

    def refused(self, call: calls.Call, sender: Key) -> str:
        outcome = self.do(call, sender)
        assert isinstance(outcome, Refused), f"{call} passed: {outcome}"
        return outcome.reason

    def found_valid(self, who: str, epoch: int, audited: int) -> None:
        """Two thirds of the validators clear a committed epoch in which they found so many drawn receipts valid."""
        provider = OWNERS[who].address
        root = self.twin.court.commitment(provider, epoch).root
        clearance = Clearance(provider, epoch, root, audited, ZERO_DIGEST)
        for voter in ("val", "vic"):
            self.expect(calls.Clear(clearance, judged(clearance, HOTS[voter])), STRANGER)

    def populate(self) -> None:
        """Everyone has money and allowances, registered and bonded; every channel has a deposit."""
        for who in EVERYONE.values():
            if who is not DEPLOYER:
                self.expect(calls.Transfer(who.address, 1_000_000), DEPLOYER)
            for spender in (AT.registry, AT.channels, AT.court, AT.credit, AT.delegations):
                self.expect(calls.Approve(spender, UINT256_MAX), who)
        for name, roles in (("ann", PROVIDER), ("bob", PROVIDER), ("gate", GATEWAY)):
            self.expect(calls.Register(roles, ZERO_DIGEST), OWNERS[name])
            self.expect(consented(OWNERS[name], HOTS[name]), OWNERS[name])
            self.expect(calls.Bond(10_000), OWNERS[name])
        for name, stake in (("val", 50_000), ("vic", 30_000), ("vow", 20_000)):
            self.expect(calls.Register(VALIDATOR, ZERO_DIGEST), OWNERS[name])
            self.expect(consented(OWNERS[name], HOTS[name]), OWNERS[name])
            self.expect(calls.Bond(stake), OWNERS[name])
        for config in CHANNEL_POOL:
            self.expect(calls.Deposit(config, 5_000), KEYS[Address(config.payer)])

    def compare(self) -> None:
        """Every view of the bytecode equals the twin's."""
        read, twin = self.bytecode.read, self.twin
        assert read("Token", "totalSupply") == twin.token.supply()
        for address in (*KEYS, AT.registry, AT.channels, AT.court, AT.credit, AT.delegations):
            assert read("Token", "balanceOf", address) == twin.token.balance(address)
        assert read("Registry", "totalValidatorStake") == twin.registry.total_validator_stake()
        for address in KEYS:
            found = twin.registry.participant(address)
            assert read("Registry", "participants", address) == (
                found.stake,
                found.roles,
                found.barred,
                found.ready_s,
                found.unbonding,
                found.card,
            )
            owner, roles = read("Registry", "standing", address)
            assert (bytes.fromhex(owner[2:]), roles) == twin.registry.standing(address)
            assert bytes.fromhex(read("Registry", "ownerOf", address)[2:]) == twin.registry.owner_of(address)
            assert read("Court", "committedTotal", address) == twin.court.committed_total(address)
            history = (twin.court.committed_until(address), twin.court.valid_in_a_row(address))
            assert read("Court", "histories", address) == history
            for count, total in ((1, 0), (7, 1), (100, 1_000), (8_192, 10**9)):
                assert read("Court", "rateOf", address, count, total) == twin.court.rate_of(
                    address, count, total
                )
            assert read("Court", "convicted", address) == twin.court.convicted(address)
            assert read("Court", "equivocated", address) == twin.court.equivocated(address)
            assert read("Channels", "claimedTotal", address) == twin.channels.claimed_total(address)
            assert (read("Channels", "barredAt", address) != 0) == twin.channels.barred(address)
        self._compare_channels()
        self._compare_challenges()

    def _compare_challenges(self) -> None:
        read, court = self.bytecode.read, self.twin.court
        names = ("auditRatePpm", "bountyBps", "answerS", "challengeBond")
        assert tuple(read("Court", name) for name in names) == msgspec.structs.astuple(court.parameters())
        keys: list[Any] = [key for key, _ in self.twin.state()]
        for _, provider, epoch in [key for key in keys if key[0] == "commitment"]:
            made = court.commitment(provider, epoch)
            assert read("Court", "commitments", provider, epoch) == (
                made.root,
                made.total,
                made.count,
                made.at_s,
                made.round,
                made.rate_ppm,
            )
        for _, provider, epoch, index in [key for key in keys if key[0] == "challenge"]:
            found = court.challenge_of(provider, epoch, index)
            assert read("Court", "challenges", read("Court", "challengeKey", provider, epoch, index)) == (
                "0x" + found.payer.hex(),
                found.deadline_s,
                found.finish_s,
                found.parts,
                found.answered,
                found.bond,
                found.received,
            )

    def _compare_channels(self) -> None:
        read, channels = self.bytecode.read, self.twin.channels
        for config in CHANNEL_POOL:
            channel_id = channels.channel_id(config)
            receiver = Address(config.receiver)
            assert read("Channels", "getChannelId", config) == channel_id
            state, hold = channels.channel(channel_id), channels.channel_hold(channel_id)
            assert read("Channels", "channels", channel_id) == (state.balance, state.total_claimed)
            assert read("Channels", "channelHolds", channel_id) == (hold.current, hold.previous, hold.window)
            pending = channels.withdrawal(channel_id)
            assert read("Channels", "pendingWithdrawals", channel_id) == (pending.amount, pending.initiated_s)
            assert read("Channels", "refundNonce", channel_id) == channels.refund_nonce(channel_id)
            sums, total = channels.receiver(receiver, AT.token), channels.receiver_hold(receiver, AT.token)
            assert read("Channels", "receivers", receiver, AT.token) == (
                sums.total_claimed,
                sums.total_settled,
            )
            assert read("Channels", "receiverHolds", receiver, AT.token) == (
                total.current,
                total.previous,
                total.window,
            )
            self.bytecode.enter(self.block())
            assert read("Channels", "matured", receiver, AT.token) == channels.matured(
                receiver, AT.token, self.now_s
            )
            assert read("Channels", "held", receiver, AT.token) == channels.held(
                receiver, AT.token, self.now_s
            )
