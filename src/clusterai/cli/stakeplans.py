"""What a wish about stake comes to: the transactions, the sentences that say what they mean, or why not and what to do.

Pure: everything that a contract would refuse is refused here first, before anything is sent.
"""

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.staking import Stakes, Validator
from clusterai.ledger.adapters.network import Network
from clusterai.ledger.core import calls
from clusterai.ledger.core.twin.delegations import MAX_COMMISSION_BPS, MAX_PENDING
from clusterai.ledger.core.twin.registry import DELEGATED_PER_OWN
from clusterai.protocol.ids import address
from clusterai.protocol.money import show as money


class Plan(msgspec.Struct, frozen=True):
    """What would be sent, and the sentences that tell a person what it means."""

    calls: tuple[calls.Call, ...]
    says: tuple[str, ...]
    amount_wei: int = 0


def delegating(stakes: Stakes, network: Network, validator: Validator, amount_wei: int) -> Plan:
    """
    Raises:
        Failure: the contract would refuse it.
    """
    target = address(validator.validator)
    if amount_wei == 0:
        raise Failure("nothing was to be delegated", "the amount is zero", code=Exit.USAGE)
    if validator.barred:
        raise Failure(
            f"{validator.validator} was slashed", "it can't validate any more", "clusterai stake show"
        )
    if validator.provides:
        raise Failure(
            f"{validator.validator} provides, too",
            "its stake answers for that work, and others' would be held with it",
            "clusterai stake show: choose one that validates only",
        )
    if amount_wei > validator.room_wei:
        raise Failure(
            f"{validator.validator} has room for {money(validator.room_wei)}",
            f"what is delegated counts up to {DELEGATED_PER_OWN} times the validator's own {money(validator.own_wei)}",
            f"delegate up to {money(validator.room_wei)}, or choose another: clusterai stake show",
        )
    if amount_wei > stakes.balance_wei:
        raise Failure(
            f"{stakes.delegator} has {money(stakes.balance_wei)}",
            f"{money(amount_wei)} were to be delegated",
            "name another key with --key, or send tokens to this address",
        )
    approve: tuple[calls.Call, ...] = ()
    if stakes.allowance_wei < amount_wei:
        approve = (calls.Approve(network.contracts.delegations, amount_wei),)
    starts_s = (stakes.time_s // stakes.unbond_delay_s + 2) * stakes.unbond_delay_s
    return Plan(
        (*approve, calls.DelegateStake(target, amount_wei)),
        (
            f"{money(amount_wei)} of {stakes.delegator} go behind {validator.validator}.",
            f"They vote with it at once, and begin to earn in {starts_s - stakes.time_s} s.",
            f"Its commission is {percent(validator.commission_bps)}{_pending(validator)}.",
            "If it is slashed, all of it is lost.",
            f"Taking them back takes {stakes.unbond_delay_s} s, in which they can still be lost.",
        ),
        amount_wei,
    )


def undelegating(stakes: Stakes, validator: Validator, amount_wei: int | None) -> Plan:
    """All of it where no amount is given.

    Raises:
        Failure: there isn't so much, or too many undelegations wait.
    """
    mine = stakes.delegation(validator)
    if mine.lost:
        raise _lost(validator)
    amount_wei = mine.stake_wei if amount_wei is None else amount_wei
    if not 0 < amount_wei <= mine.stake_wei:
        raise Failure(
            f"{stakes.delegator} has {money(mine.stake_wei)} behind {validator.validator}",
            f"{money(amount_wei)} were to be taken back",
            "clusterai stake show",
        )
    if len(mine.leaving) >= MAX_PENDING:
        first = min(it.ready_s for it in mine.leaving)
        raise Failure(
            f"{MAX_PENDING} undelegations wait, and no more can",
            f"the first is ready in {max(0, first - stakes.time_s)} s",
            f"clusterai stake withdraw {validator.validator}, then again",
        )
    return Plan(
        (calls.UndelegateStake(address(validator.validator), amount_wei),),
        (
            f"{money(amount_wei)} behind {validator.validator} stop earning and voting at once.",
            f"They can be withdrawn in {stakes.unbond_delay_s} s, and be lost until then.",
        ),
        amount_wei,
    )


def withdrawing(stakes: Stakes, validator: Validator | None) -> Plan:
    """From one validator, or from all.

    Raises:
        Failure: nothing is ready.
    """
    mine = stakes.delegations if validator is None else [stakes.delegation(validator)]
    if validator is not None and mine[0].lost:
        raise _lost(validator)
    ready = [(it, it.ready(stakes.time_s)) for it in mine if it.ready(stakes.time_s)]
    if not ready:
        waits = [one.ready_s for it in mine if not it.lost for one in it.leaving]
        why = f"the next is ready in {min(waits) - stakes.time_s} s" if waits else "none was undelegated"
        raise Failure(
            "nothing can be withdrawn",
            why,
            "clusterai stake withdraw, then" if waits else "clusterai stake undelegate VALIDATOR AMOUNT",
        )
    return Plan(
        tuple(calls.WithdrawStake(address(it.validator)) for it, _ in ready),
        tuple(f"{money(amount)} come back from {it.validator}." for it, amount in ready),
        sum(amount for _, amount in ready),
    )


def claiming(stakes: Stakes, validator: Validator | None) -> Plan:
    """From one validator, or from all.

    Raises:
        Failure: nothing was earned.
    """
    mine = stakes.delegations if validator is None else [stakes.delegation(validator)]
    earned = [it for it in mine if it.earned_wei]
    if not earned:
        raise Failure(
            "nothing was earned yet",
            "stake earns when its validator does, from the second period after it was delegated on",
            "clusterai stake show",
        )
    return Plan(
        tuple(calls.ClaimReward(address(it.validator)) for it in earned),
        tuple(f"{money(it.earned_wei)} earned behind {it.validator} are paid out." for it in earned),
        sum(it.earned_wei for it in earned),
    )


def announcing(stakes: Stakes, bps: int) -> Plan:
    """
    Raises:
        Failure: the key isn't a validator's owner, or the commission is too high.
    """
    if all(it.validator != stakes.delegator for it in stakes.validators):
        raise Failure(
            f"{stakes.delegator} is no validator",
            "a commission is announced with the validator's owner key",
            "clusterai stake commission PERCENT --key FILE",
        )
    if not 0 <= bps <= MAX_COMMISSION_BPS:
        raise Failure(
            f"{percent(bps)} is no commission",
            f"it is between 0 % and {percent(MAX_COMMISSION_BPS)}",
            code=Exit.USAGE,
        )
    return Plan(
        (calls.AnnounceCommission(bps),),
        (f"From {stakes.unbond_delay_s} s on the commission of {stakes.delegator} is {percent(bps)}.",),
    )


def percent(bps: int) -> str:
    return f"{bps / 100:g} %"


def _pending(validator: Validator) -> str:
    return (
        f", {percent(validator.next_commission_bps)} is announced"
        if validator.next_commission_bps != validator.commission_bps
        else ""
    )


def _lost(validator: Validator) -> Failure:
    return Failure(
        f"{validator.validator} was slashed",
        "all that was behind it is burned",
        f"what it had earned before can be claimed: clusterai stake claim {validator.validator}",
    )
