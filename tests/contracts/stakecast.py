"""Stake behind validators among the cast: who delegates, what validators are worth then, and how one is slashed."""

from typing import Any

import msgspec

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Event
from clusterai.ledger.core.twin.delegations import Pool, Position
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import Verdict
from tests.contracts.cast import AT, EVERYONE, HOTS, KEYS, OWNERS, RULES, Pair, judged

DELAY_S = RULES.unbond_delay_s
VALIDATORS = ("val", "vic", "vow")
"""With 50,000, 30,000 and 20,000 at stake, and room for three times as much behind each."""
DELEGATORS = ("payer", "stranger", "gate", "bob")


def at(name: str) -> Address:
    return EVERYONE[name].address


class StakePair(Pair):
    """Chains with a panel, on which everyone may put stake behind validators."""

    def populate(self) -> None:
        super().populate()
        for name in VALIDATORS:
            self.expect(calls.Enlist(), HOTS[name])
        self.to_period()

    def to_period(self, later: int = 1) -> None:
        """To the first second of a later period."""
        self.advance((self.now_s // DELAY_S + later) * DELAY_S - self.now_s)

    # --- what is done ---

    def delegate(self, who: str, validator: str, amount: int) -> tuple[Event, ...]:
        return self.expect(calls.DelegateStake(at(validator), amount), EVERYONE[who])

    def undelegate(self, who: str, validator: str, amount: int) -> tuple[Event, ...]:
        return self.expect(calls.UndelegateStake(at(validator), amount), EVERYONE[who])

    def reward(self, validator: str, amount: int) -> tuple[Event, ...]:
        return self.expect(calls.PayReward(at(validator), amount), EVERYONE["deployer"])

    def equivocate(self, validator: str, finder: Key) -> tuple[Event, ...]:
        """Two verdicts of one validator on one receipt, shown by `finder`."""
        return self.expect(contradiction(validator), finder)

    # --- what there is ---

    def votes(self, validator: str) -> int:
        return self.twin.registry.validator_stake(at(validator))

    def pool(self, validator: str) -> Pool:
        return self.twin.delegations.pool(at(validator))

    def position(self, validator: str, delegator: str) -> Position:
        return self.twin.delegations.position(at(validator), at(delegator), self.now_s)

    def earned(self, validator: str, delegator: str) -> int:
        return self.position(validator, delegator).earned

    def balance(self, who: str | Address) -> int:
        return self.twin.token.balance(at(who) if isinstance(who, str) else who)

    def seats(self) -> dict[Address, int]:
        """Everyone on the panel now, with what weight."""
        panel = self.twin.panel
        return dict(panel.seat_at(seat) for seat in range(panel.taken()))

    def compare(self) -> None:
        super().compare()
        read, twin = self.bytecode.read, self.twin
        self.bytecode.enter(self.block())
        for who in KEYS:
            assert read("Registry", "delegated", who) == twin.registry.delegated(who)
            assert read("Registry", "validatorStake", who) == twin.registry.validator_stake(who)
        for validator in map(at, VALIDATORS):
            pool = twin.delegations.pool(validator)
            assert read("Delegations", "poolOf", validator) == msgspec.structs.astuple(pool)
            assert read("Delegations", "delegatedTo", validator) == pool.delegated
            assert read("Delegations", "commissionOf", validator) == pool.commission(self.now_s)
            for who in KEYS:
                position = twin.delegations.position(validator, who, self.now_s)
                assert read("Delegations", "positionOf", validator, who) == msgspec.structs.astuple(position)
                line = [msgspec.structs.astuple(one) for one in twin.delegations.pending(validator, who)]
                assert list(read("Delegations", "pendingOf", validator, who)) == line
        for seat in range(twin.panel.taken()):
            owner, weight = read("Panel", "seatAt", seat)
            assert (bytes.fromhex(owner[2:]), weight) == twin.panel.seat_at(seat)

    def check(self) -> None:
        """What holds at every moment: not a unit is missing, and no seat or sum counts what can't be lost."""
        twin, held = self.twin, 0
        keys: list[Any] = [key for key, _ in twin.state()]
        for validator in [key[1] for key in keys if key[0] == "pool"]:
            pool = twin.delegations.pool(validator)
            positions = [twin.delegations.position(validator, who, self.now_s) for who in KEYS]
            waiting = [one for who in KEYS for one in twin.delegations.pending(validator, who)]
            assert sum(one.earned for one in positions) <= pool.unclaimed, "more owed than there is"
            assert sum(one.stake for one in positions) == pool.delegated == twin.registry.delegated(validator)
            if not pool.lost:
                assert sum(one.amount for one in waiting) == pool.unbonding
            held += pool.delegated + pool.unbonding + pool.unclaimed
        assert twin.token.balance(AT.delegations) == held, "the contract holds what it owes"
        everyone = [key[1] for key in keys if key[0] == "participant"]
        assert twin.registry.total_validator_stake() == sum(map(twin.registry.validator_stake, everyone))
        for owner, weight in self.seats().items():
            assert owner == ZERO_ADDRESS or weight == twin.registry.validator_stake(owner)


def contradiction(validator: str) -> calls.Equivocation:
    first, second = (
        Verdict(OWNERS["ann"].address, 0, 0, ZERO_DIGEST, outcome, ZERO_DIGEST) for outcome in (2, 3)
    )
    hot = HOTS[validator]
    return calls.Equivocation(first, judged(first, hot), second, judged(second, hot))


def told(events: tuple[Event, ...], kind: type[Any]) -> Any:
    """The one event of a kind."""
    found = [event for event in events if isinstance(event, kind)]
    assert len(found) == 1, f"{kind.__name__}: {found}"
    return found[0]
