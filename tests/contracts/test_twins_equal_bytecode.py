"""Long random histories on the bytecode and on the twins: equal outcomes, events and state, and money conserved."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Claimed, Event, Reclaimed, Settled
from clusterai.ledger.core.twin import Refused
from clusterai.protocol import merkle
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import EPOCH_LIST, ChannelConfig, Clearance, Verdict
from tests.contracts.cast import (
    AT,
    CHANNEL_POOL,
    DEPLOYER,
    EVERYONE,
    HOTS,
    KEYS,
    OWNERS,
    RULES,
    Pair,
    claim_row,
    consented,
    judged,
    receipts,
)

names = st.sampled_from(sorted(EVERYONE))
owners = st.sampled_from(sorted(OWNERS))
validators = st.sampled_from(("val", "vic", "vow"))
providers = st.sampled_from(("ann", "bob"))
configs = st.sampled_from(CHANNEL_POOL)
amounts = st.one_of(st.integers(0, 3_000), st.integers(0, 2**128 - 1))
small = st.integers(0, 3_000)
indices = st.one_of(st.integers(0, 5), st.just(EPOCH_LIST))
outcomes = st.sampled_from((2, 2, 2, 3, 3, 1))
evidence = st.sampled_from((ZERO_DIGEST, Digest(b"\x01" * 32)))


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.committed: dict[tuple[str, int], list[Digest]] = {}
        self.claims: list[tuple[Address, int, int]] = []
        self.settled: dict[Address, int] = {}
        self.ceilings: dict[Digest, int] = {}

    @initialize(populated=st.integers(0, 9))
    def begin(self, populated: int) -> None:
        if populated:
            self.pair.populate()

    # --- what happens ---

    def do(self, call: calls.Call, sender: Key) -> tuple[Event, ...] | Refused:
        outcome = self.pair.do(call, sender)
        if not isinstance(outcome, Refused):
            for event in outcome:
                self.note(event)
        return outcome

    def note(self, event: Event) -> None:
        """A second bookkeeping of the window, which knows no buckets: only when each amount was claimed."""
        match event:
            case Claimed(_, receiver, amount, _, _):
                self.claims.append((receiver, amount, self.pair.now_s))
            case Settled(receiver, _, _, amount):
                self.settled[receiver] = self.settled.get(receiver, 0) + amount
                ripe = sum(
                    claimed
                    for who, claimed, at_s in self.claims
                    if who == receiver and at_s + RULES.window_s < self.pair.now_s
                )
                assert self.settled[receiver] <= ripe, "paid before the window ended"
            case Reclaimed():
                pass
            case _:
                pass

    @rule(seconds=st.sampled_from((1, 7, 14, 15, 16, 31, 59, 61, 121, 901)))
    def time_passes(self, seconds: int) -> None:
        self.pair.advance(seconds)

    # --- token, registry, credit: one rule each, so that most steps are about channels and the court ---

    @rule(kind=st.integers(0, 3), who=names, other=names, value=amounts)
    def money_moves(self, kind: int, who: str, other: str, value: int) -> None:
        to = EVERYONE[other].address
        spender = (AT.registry, AT.channels, AT.court, AT.credit)[value % 4]
        any_of: tuple[calls.Call, ...] = (
            calls.Transfer(to, value),
            calls.Approve(spender, value),
            calls.Burn(value),
            calls.Fund(to, ZERO_DIGEST, value),
        )
        self.do(any_of[kind], EVERYONE[who])

    @rule(kind=st.integers(0, 4), who=names, other=names, roles=st.integers(0, 8))
    def participants_change(self, kind: int, who: str, other: str, roles: int) -> None:
        key = EVERYONE[other].address
        any_of: tuple[calls.Call, ...] = (
            calls.Register(roles, ZERO_DIGEST),
            calls.UpdateCard(ZERO_DIGEST),
            consented(EVERYONE[who], EVERYONE[other], EVERYONE[who] if roles == 8 else None),
            calls.Revoke(key),
            calls.Revoke(HOTS[who].address if who in HOTS else key),
        )
        self.do(any_of[kind], EVERYONE[who])

    @rule(kind=st.integers(0, 2), who=owners, amount=amounts)
    def stake_changes(self, kind: int, who: str, amount: int) -> None:
        any_of = (calls.Bond(amount), calls.Unbond(amount), calls.Withdraw())
        self.do(any_of[kind], OWNERS[who])

    # --- channels ---

    @rule(config=configs, who=names, amount=amounts)
    def deposit(self, config: ChannelConfig, who: str, amount: int) -> None:
        self.do(calls.Deposit(config, amount), EVERYONE[who])

    @rule(
        config=configs,
        more=st.lists(configs, max_size=2),
        rise=st.integers(0, 400),
        spare=st.sampled_from((0, 0, 0, 50, -1)),
        data=st.data(),
    )
    def claim(
        self, config: ChannelConfig, more: list[ChannelConfig], rise: int, spare: int, data: st.DataObject
    ) -> None:
        rows: list[calls.VoucherClaim] = []
        forger = EVERYONE[data.draw(names)] if data.draw(st.integers(0, 15)) == 0 else None
        for one in (config, *(other for other in more if other.receiver == config.receiver)):
            claimed = self.pair.twin.channels.channel(self.pair.twin.channels.channel_id(one)).total_claimed
            rows.append(claim_row(one, claimed + rise, max(0, claimed + rise + spare), forger))
        self.submit_claim(tuple(rows), self.receiver_side(data, config))

    @rule(rows=st.lists(st.tuples(configs, small), max_size=4), data=st.data())
    def claim_anything(self, rows: list[tuple[ChannelConfig, int]], data: st.DataObject) -> None:
        made = tuple(claim_row(config, total) for config, total in rows)
        self.submit_claim(made, self.receiver_side(data, rows[0][0]) if rows else DEPLOYER)

    def submit_claim(self, rows: tuple[calls.VoucherClaim, ...], sender: Key) -> None:
        outcome = self.do(calls.Claim(rows), sender)
        if not isinstance(outcome, Refused):
            for row in rows:
                channel_id = self.pair.twin.channels.channel_id(row.config)
                self.ceilings[channel_id] = max(self.ceilings.get(channel_id, 0), row.max_claimable)

    def receiver_side(self, data: st.DataObject, config: ChannelConfig) -> Key:
        if data.draw(st.integers(0, 9)) == 0:
            return EVERYONE[data.draw(names)]
        return KEYS[
            data.draw(st.sampled_from((Address(config.receiver), Address(config.receiver_authorizer))))
        ]

    @rule(config=configs)
    def settle(self, config: ChannelConfig) -> None:
        self.do(calls.Settle(Address(config.receiver), AT.token), DEPLOYER)

    @rule(config=configs)
    def reclaim(self, config: ChannelConfig) -> None:
        self.do(calls.Reclaim(config), DEPLOYER)

    @rule(config=configs, amount=small, data=st.data())
    def refund(self, config: ChannelConfig, amount: int, data: st.DataObject) -> None:
        self.do(calls.Refund(config, amount), self.receiver_side(data, config))

    @rule(config=configs, amount=small, waits=st.booleans(), data=st.data())
    def take_back(self, config: ChannelConfig, amount: int, waits: bool, data: st.DataObject) -> None:
        """The payer withdraws, now or after the delay; claims may come between."""
        payer = KEYS[Address(config.payer)] if data.draw(st.integers(0, 7)) else DEPLOYER
        self.do(calls.InitiateWithdraw(config, amount), payer)
        if waits:
            self.pair.advance(900)
        self.do(calls.FinalizeWithdraw(config), payer)

    # --- court ---

    @rule(who=names)
    def tick(self, who: str) -> None:
        self.do(calls.Tick(), EVERYONE[who])

    @rule(who=providers, back=st.integers(-1, 3), count=st.integers(0, 6), total=small, hot=st.integers(0, 9))
    def commit(self, who: str, back: int, count: int, total: int, hot: int) -> None:
        epoch = max(0, self.pair.now_s // RULES.epoch_s - back)
        leaves = receipts(who, epoch, count)
        sender = HOTS[who] if hot else EVERYONE["stranger"]
        outcome = self.do(calls.CommitEpoch(epoch, merkle.root(leaves), count, total), sender)
        if not isinstance(outcome, Refused):
            self.committed[who, epoch] = leaves

    @rule(who=providers, seconds=st.integers(1, 40))
    def commit_and_draw(self, who: str, seconds: int) -> None:
        """What honest daemons do, so that histories reach the draw often."""
        self.commit(who, 1, 4, 1_500, 1)
        self.pair.advance(max(seconds, RULES.epoch_s))
        self.do(calls.Tick(), DEPLOYER)

    @rule(who=providers, rise=st.integers(1, 400), wait=st.sampled_from((1, 30, 59)), rare=st.integers(0, 3))
    def cheat_is_convicted(self, who: str, rise: int, wait: int, rare: int) -> None:
        """Claim, be convicted for the epoch's list some time later, and forfeit what is held."""
        if rare:
            return
        self.commit_and_draw(who, 1)
        theirs = [c for c in CHANNEL_POOL if c.receiver in (OWNERS[who].address, HOTS[who].address)]
        for config in theirs:
            claimed = self.pair.twin.channels.channel(
                self.pair.twin.channels.channel_id(config)
            ).total_claimed
            self.submit_claim((claim_row(config, claimed + rise),), KEYS[Address(config.receiver)])
        self.pair.advance(wait)
        epochs = [epoch for name, epoch in self.committed if name == who]
        verdict = Verdict(
            OWNERS[who].address, max(epochs, default=1), EPOCH_LIST, ZERO_DIGEST, 2, ZERO_DIGEST
        )
        for voter in ("val", "vic"):
            self.do(calls.Vote(verdict, (), judged(verdict, HOTS[voter])), DEPLOYER)
        for config in theirs:
            self.do(calls.Reclaim(config), DEPLOYER)

    def some_commitment(self, data: st.DataObject) -> tuple[str, int, list[Digest]]:
        if not self.committed:
            return "ann", 1, receipts("ann", 1, 3)
        newest = sorted(self.committed, key=lambda key: -key[1])[:3]
        who, epoch = data.draw(st.sampled_from(newest))
        return who, epoch, self.committed[who, epoch]

    @rule(data=st.data(), index=indices, outcome=outcomes, shown=evidence, voters=st.sets(validators))
    def vote(self, data: st.DataObject, index: int, outcome: int, shown: Digest, voters: set[str]) -> None:
        who, epoch, leaves = self.some_commitment(data)
        known = index < len(leaves)
        leaf = leaves[index] if known else ZERO_DIGEST
        proof = merkle.proof(leaves, index) if known else ()
        if proof and data.draw(st.integers(0, 7)) == 0:
            proof = proof[1:]
        provider = OWNERS[who].address
        verdict = Verdict(provider, epoch, index, leaf, outcome, shown)
        for voter in sorted(voters):
            self.do(calls.Vote(verdict, proof, judged(verdict, HOTS[voter])), DEPLOYER)

    @rule(data=st.data(), index=indices, who=names)
    def vote_by_anyone(self, data: st.DataObject, index: int, who: str) -> None:
        provider, epoch, leaves = self.some_commitment(data)
        known = index < len(leaves)
        leaf = leaves[index] if known else ZERO_DIGEST
        proof = merkle.proof(leaves, index) if known else ()
        verdict = Verdict(OWNERS[provider].address, epoch, index, leaf, 2, ZERO_DIGEST)
        signature = judged(verdict, EVERYONE[who])
        if data.draw(st.booleans()):
            signature = signature[:32] + bytes(32) + signature[64:]
        self.do(calls.Vote(verdict, proof, signature), DEPLOYER)

    @rule(
        data=st.data(),
        right=st.booleans(),
        voters=st.sets(validators),
        audited=st.sampled_from((0, 2, 40, 2**32 - 1)),
    )
    def clear(self, data: st.DataObject, right: bool, voters: set[str], audited: int) -> None:
        who, epoch, leaves = self.some_commitment(data)
        root = merkle.root(leaves) if right else ZERO_DIGEST
        clearance = Clearance(OWNERS[who].address, epoch, root, audited, ZERO_DIGEST)
        for voter in sorted(voters):
            self.do(calls.Clear(clearance, judged(clearance, HOTS[voter])), DEPLOYER)

    @rule(data=st.data(), index=indices, who=validators)
    def challenge(self, data: st.DataObject, index: int, who: str) -> None:
        provider, epoch, _ = self.some_commitment(data)
        self.do(calls.Challenge(OWNERS[provider].address, epoch, index), HOTS[who])

    @rule(
        data=st.data(),
        index=indices,
        size=st.sampled_from((0, 10, 24_577)),
        wrong=st.booleans(),
        parts=st.sampled_from((0, 1, 2, 3, 64, 65)),
    )
    def answer(self, data: st.DataObject, index: int, size: int, wrong: bool, parts: int) -> None:
        """Some parts in any order, now and then one twice, one too many, or of another count than the first."""
        provider, epoch, _ = self.some_commitment(data)
        sender = HOTS["bob" if wrong else provider]
        some = st.lists(st.integers(0, min(parts, 3)), max_size=4) | st.just([63]) | st.just([*range(parts)])
        for part in data.draw(some):
            call = calls.AnswerChallenge(OWNERS[provider].address, epoch, index, part, parts, bytes(size))
            self.do(call, sender)

    @rule(
        rate_ppm=st.sampled_from((0, 1, 500_000, 1_000_000, 1_000_001)),
        bounty_bps=st.sampled_from((0, 5_000, 5_001)),
        answer_s=st.sampled_from((0, 5, 10, 11)),
        bond=st.sampled_from((0, 1_000, 1_000 * 10**9 + 1)),
        who=st.sampled_from(("deployer", "deployer", "deployer", "ann")),
    )
    def parameters(self, rate_ppm: int, bounty_bps: int, answer_s: int, bond: int, who: str) -> None:
        self.do(calls.SetParameters(calls.Parameters(rate_ppm, bounty_bps, answer_s, bond)), EVERYONE[who])

    @rule(data=st.data(), index=indices)
    def recover_bond(self, data: st.DataObject, index: int) -> None:
        provider, epoch, _ = self.some_commitment(data)
        self.do(calls.RecoverBond(OWNERS[provider].address, epoch, index), DEPLOYER)

    @rule(data=st.data(), one=names, other=names, outcome=outcomes, finder=names)
    def equivocation(self, data: st.DataObject, one: str, other: str, outcome: int, finder: str) -> None:
        provider, epoch, _ = self.some_commitment(data)
        first = Verdict(OWNERS[provider].address, epoch, 0, ZERO_DIGEST, 2, ZERO_DIGEST)
        second = Verdict(OWNERS[provider].address, epoch, 0, ZERO_DIGEST, outcome, ZERO_DIGEST)
        self.do(
            calls.Equivocation(first, judged(first, EVERYONE[one]), second, judged(second, EVERYONE[other])),
            EVERYONE[finder],
        )

    # --- what always holds ---

    @invariant()
    def money_is_conserved(self) -> None:
        twin = self.pair.twin
        contracts = (AT.registry, AT.channels, AT.court, AT.credit)
        assert sum(map(twin.token.balance, (*KEYS, *contracts))) == twin.token.supply()
        at_stake = [twin.registry.participant(address) for address in KEYS]
        assert twin.token.balance(AT.registry) == sum(one.stake + one.unbonding for one in at_stake)
        voting = sum(one.stake for one in at_stake if one.roles & 4)
        assert twin.registry.total_validator_stake() == voting
        states = [twin.channels.channel(twin.channels.channel_id(config)) for config in CHANNEL_POOL]
        receivers = {Address(config.receiver) for config in CHANNEL_POOL}
        sums = [twin.channels.receiver(receiver, AT.token) for receiver in receivers]
        free = sum(one.balance - one.total_claimed for one in states)
        held = sum(twin.channels.held(receiver, AT.token, self.pair.now_s) for receiver in receivers)
        matured = sum(twin.channels.matured(receiver, AT.token, self.pair.now_s) for receiver in receivers)
        assert twin.token.balance(AT.channels) == free + held + matured
        assert sum(one.total_claimed for one in sums) == sum(one.total_claimed for one in states)

    @invariant()
    def nothing_is_claimed_beyond_a_signature(self) -> None:
        for config in CHANNEL_POOL:
            channel_id = self.pair.twin.channels.channel_id(config)
            claimed = self.pair.twin.channels.channel(channel_id).total_claimed
            assert claimed <= self.ceilings.get(channel_id, 0)

    @invariant()
    def providers_claim_at_most_what_they_committed(self) -> None:
        for name in OWNERS:
            owner = OWNERS[name].address
            assert self.pair.twin.channels.claimed_total(owner) <= self.pair.twin.court.committed_total(owner)

    def teardown(self) -> None:
        self.pair.compare()


def run(machine: type[Any], examples: int, steps: int) -> None:
    run_state_machine_as_test(  # pyright: ignore[reportUnknownVariableType]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much),
        ),
    )


def test_twins_and_bytecode_agree_over_random_histories() -> None:
    """Outcome, revert name, events and state of twin and bytecode are equal, and money is conserved at each step."""
    run(Histories, examples=100, steps=80)
