"""Delegations.sol: other people's stake behind a validator, and what it earns."""

import msgspec

from clusterai.ledger.core.stake_events import (
    CommissionAnnounced,
    DelegatedSlashed,
    RewardClaimed,
    RewardShared,
    StakeDelegated,
    StakeUndelegated,
    StakeWithdrawn,
)
from clusterai.ledger.core.twin.registry import DELEGATED_PER_OWN, PROVIDER, VALIDATOR, Registry
from clusterai.ledger.core.twin.state import Transaction, World, checked, require
from clusterai.ledger.core.twin.token import Token
from clusterai.protocol.ids import Address

MAX_COMMISSION_BPS = 5_000
MAX_PENDING = 8
UNIT = 10**18


class Pool(msgspec.Struct, frozen=True):
    active: int = 0
    entering: int = 0
    entered: int = 0
    unbonding: int = 0
    own: int = 0
    low: int = 0
    low_before: int = 0
    period: int = 0
    commission_from_s: int = 0
    commission_bps: int = 0
    next_commission_bps: int = 0
    lost: bool = False
    per_unit: int = 0
    unclaimed: int = 0
    carry: int = 0

    @property
    def delegated(self) -> int:
        return self.active + self.entered + self.entering

    def commission(self, now_s: int) -> int:
        return self.next_commission_bps if now_s >= self.commission_from_s else self.commission_bps


class Position(msgspec.Struct, frozen=True):
    active: int = 0
    entering: int = 0
    entered: int = 0
    earned: int = 0
    per_unit: int = 0
    period: int = 0

    @property
    def stake(self) -> int:
        return self.active + self.entered + self.entering


class Request(msgspec.Struct, frozen=True):
    amount: int
    ready_s: int


_EMPTY = Pool()
_NOTHING = Position()
_replace = msgspec.structs.replace


class Delegations:
    def __init__(self, world: World, token: Token, registry: Registry) -> None:
        self._store = world.store
        self._token = token
        self._registry = registry
        self._here = world.addresses.delegations
        self._delay_s = world.rules.unbond_delay_s

    # --- public: delegators ---

    def delegate_stake(self, tx: Transaction, validator: Address, amount: int) -> None:
        require(amount != 0, "ZeroAmount")
        participant = self._registry.participant(validator)
        require(participant.roles & VALIDATOR != 0, "NotValidator")
        require(participant.roles & PROVIDER == 0, "ProvidesToo")
        require(not participant.barred, "ValidatorBarred")
        delegated = self.pool(validator).delegated
        room = max(0, participant.stake * DELEGATED_PER_OWN - delegated)
        require(amount <= room, "NoRoom")
        pool = self._roll(tx, validator)
        position = self.position(validator, tx.sender, tx.now_s)
        self._put(validator, _replace(pool, entering=pool.entering + amount))
        self._hold(validator, tx.sender, _replace(position, entering=position.entering + amount))
        tx.emit(StakeDelegated(validator, tx.sender, amount, delegated + amount))
        self._token.pull(tx, self._here, tx.sender, self._here, amount)
        self._registry.set_delegated(tx, validator, delegated + amount)

    def undelegate_stake(self, tx: Transaction, validator: Address, amount: int) -> None:
        require(amount != 0, "ZeroAmount")
        pool = self._roll(tx, validator)
        require(not pool.lost, "StakeLost")
        position = self.position(validator, tx.sender, tx.now_s)
        require(amount <= position.stake, "InsufficientStake")
        line = self.pending(validator, tx.sender)
        require(len(line) < MAX_PENDING, "TooManyPending")
        fresh = min(amount, position.entering)
        young = min(amount - fresh, position.entered)
        rest = amount - fresh - young
        position = _replace(
            position,
            entering=position.entering - fresh,
            entered=position.entered - young,
            active=position.active - rest,
        )
        pool = _replace(
            pool,
            entering=pool.entering - fresh,
            entered=pool.entered - young,
            active=pool.active - rest,
            unbonding=pool.unbonding + amount,
        )
        ready_s = tx.now_s + self._delay_s
        self._hold(validator, tx.sender, position)
        self._put(validator, pool)
        self._store.put(("undelegating", validator, tx.sender), (*line, Request(amount, ready_s)))
        tx.emit(StakeUndelegated(validator, tx.sender, amount, pool.delegated, ready_s))
        self._registry.set_delegated(tx, validator, pool.delegated)

    def withdraw_stake(self, tx: Transaction, validator: Address) -> None:
        pool = self.pool(validator)
        require(not pool.lost, "StakeLost")
        line = self.pending(validator, tx.sender)
        ready = [one for one in line if one.ready_s <= tx.now_s]
        require(bool(ready), "NothingReady")
        amount = sum(one.amount for one in ready)
        self._store.put(("undelegating", validator, tx.sender), line[len(ready) :])
        self._put(validator, _replace(pool, unbonding=pool.unbonding - amount))
        tx.emit(StakeWithdrawn(validator, tx.sender, amount))
        self._token.move(tx, self._here, tx.sender, amount)

    def claim_reward(self, tx: Transaction, validator: Address) -> None:
        pool = self._roll(tx, validator)
        position = self.position(validator, tx.sender, tx.now_s)
        amount = position.earned
        require(amount != 0, "NothingEarned")
        self._hold(validator, tx.sender, _replace(position, earned=0))
        self._put(validator, _replace(pool, unclaimed=checked(pool.unclaimed - amount)))
        tx.emit(RewardClaimed(validator, tx.sender, amount))
        self._token.move(tx, self._here, tx.sender, amount)

    # --- public: validators ---

    def announce_commission(self, tx: Transaction, bps: int) -> None:
        require(self._registry.participant(tx.sender).roles & VALIDATOR != 0, "NotValidator")
        require(bps <= MAX_COMMISSION_BPS, "CommissionTooHigh")
        pool, from_s = self.pool(tx.sender), tx.now_s + self._delay_s
        changed = _replace(
            pool,
            commission_bps=pool.commission(tx.now_s),
            next_commission_bps=bps,
            commission_from_s=from_s,
        )
        self._put(tx.sender, changed)
        tx.emit(CommissionAnnounced(tx.sender, bps, from_s))

    # --- public: anyone ---

    def pay_reward(self, tx: Transaction, payer: Address, validator: Address, amount: int) -> None:
        shared = 0
        if self.pool(validator).delegated:
            pool = self._roll(tx, validator)
            if pool.active:
                part = amount * pool.active // (min(pool.low, pool.low_before) + pool.active)
                shared = part - part * pool.commission(tx.now_s) // 10_000
                units, carry = divmod(shared * UNIT + pool.carry, pool.active)
                paid = _replace(
                    pool,
                    per_unit=pool.per_unit + units,
                    carry=carry,
                    unclaimed=checked(pool.unclaimed + shared),
                )
                self._put(validator, paid)
                tx.emit(RewardShared(validator, amount, shared))
        if shared:
            self._token.pull(tx, self._here, payer, self._here, shared)
        if amount != shared:
            self._token.pull(tx, self._here, payer, validator, amount - shared)

    # --- for the Registry ---

    def slash_delegated(self, tx: Transaction, validator: Address) -> int:
        pool = self._roll(tx, validator)
        amount = pool.delegated + pool.unbonding
        self._put(validator, _replace(pool, lost=True, active=0, entering=0, entered=0, unbonding=0))
        if amount:
            tx.emit(DelegatedSlashed(validator, amount))
            self._token.destroy(tx, self._here, amount)
        return amount

    def note_own(self, tx: Transaction, validator: Address, stake: int) -> None:
        pool = self._roll(tx, validator)
        self._put(validator, _replace(pool, own=stake, low=min(stake, pool.low)))

    # --- views ---

    def pool(self, validator: Address) -> Pool:
        return self._store.get(("pool", validator), _EMPTY)

    def position(self, validator: Address, delegator: Address, now_s: int) -> Position:
        """What a delegator has behind `validator` at `now_s`, and what it could claim."""
        pool = self.pool(validator)
        kept: Position = self._store.get(("position", validator, delegator), _NOTHING)
        current = self._period(pool, now_s)
        total = kept.active * (pool.per_unit - kept.per_unit)
        active, entered, entering = kept.active, kept.entered, kept.entering
        for period in range(kept.period + 1, min(current, kept.period + 2) + 1):
            since = pool.per_unit if period > pool.period else self._per_unit_at(validator, period)
            total += entered * (pool.per_unit - since)
            active, entered, entering = active + entered, entering, 0
        if pool.lost:
            active = entered = entering = 0
        return Position(active, entering, entered, kept.earned + total // UNIT, pool.per_unit, current)

    def pending(self, validator: Address, delegator: Address) -> tuple[Request, ...]:
        return self._store.get(("undelegating", validator, delegator), ())

    # --- internal ---

    def _period(self, pool: Pool, now_s: int) -> int:
        return pool.period if pool.lost else now_s // self._delay_s

    def _per_unit_at(self, validator: Address, period: int) -> int:
        return self._store.get(("per_unit_at", validator, period), 0)

    def _roll(self, tx: Transaction, validator: Address) -> Pool:
        pool = self.pool(validator)
        last, current = pool.period, self._period(pool, tx.now_s)
        if current == last:
            return pool
        for period in range(last + 1, min(current, last + 2) + 1):
            if pool.entered:
                self._store.put(("per_unit_at", validator, period), pool.per_unit)
            pool = _replace(
                pool,
                active=pool.active + pool.entered,
                entered=pool.entering,
                entering=0,
                low_before=pool.low,
                low=pool.own,
            )
        pool = _replace(pool, period=current)
        self._put(validator, pool)
        return pool

    def _put(self, validator: Address, pool: Pool) -> None:
        self._store.put(("pool", validator), pool)

    def _hold(self, validator: Address, delegator: Address, position: Position) -> None:
        self._store.put(("position", validator, delegator), position)
