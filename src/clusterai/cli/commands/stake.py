"""`clusterai stake` and `delegate`, `undelegate`, `withdraw`, `claim`, `commission`: tokens behind validators."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure

if TYPE_CHECKING:
    from clusterai.cli.stakeplans import Plan
    from clusterai.cli.staking import Delegation, Stakes
    from clusterai.ledger.adapters.network import Network
    from clusterai.protocol.signing import Key

Which = Annotated[
    str, typer.Argument(metavar="VALIDATOR", help="The validator's owner, or how its address begins.")
]
OrAll = Annotated[
    str | None,
    typer.Argument(
        metavar="VALIDATOR", help="The validator's owner, or how its address begins. Default: all."
    ),
]


class Whose(options.Signed, frozen=True, kw_only=True):
    """Which network's, and whose."""

    network: Annotated[
        Path | None,
        typer.Option(
            "--network",
            metavar="FILE",
            help="Another network's network.json. Default: that of the data folder.",
            show_default=False,
        ),
    ] = None
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="Key whose tokens they are; the password of a keystore is CLUSTERAI_KEY_PASSWORD. Default: the local "
            "network's faucet.",
            show_default=False,
        ),
    ] = None


class OfValidator(Whose, frozen=True, kw_only=True):
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="The validator's owner key; the password of a keystore is CLUSTERAI_KEY_PASSWORD. Default: that of the "
            "local network's first validator.",
            show_default=False,
        ),
    ] = None


class Doing(options.Answer, frozen=True, kw_only=True):
    yes: options.Yes = False
    dry_run: options.DryRun = False


def join(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Put tokens behind a validator: they vote with it, earn with it and are lost with it.",
        invoke_without_command=True,
    )
    group.callback()(options.spread(stake))
    for command in (show, delegate, undelegate, withdraw, claim, commission):
        group.command()(options.spread(command))
    app.add_typer(group, name="stake")


def stake(ctx: typer.Context, *, chain: Whose, answer: options.Answer) -> None:
    """Show validators and what is behind them: the same as `show`."""
    if ctx.invoked_subcommand is None:
        show(chain=chain, answer=answer)


def show(*, chain: Whose, answer: options.Answer) -> None:
    """Show validators: their own stake, what others have behind them, commission, room; and what the key has there."""
    from clusterai.cli.stakeplans import percent
    from clusterai.protocol.money import show as money

    _, _, stakes = _look(chain)
    if answer.json:
        say.emit(stakes)
        return
    say.table(
        ("validator", "#own", "#delegated", "#votes", "#room", "#commission", ""),
        [
            (
                it.validator,
                money(it.own_wei),
                money(it.delegated_wei),
                money(it.votes_wei),
                money(it.room_wei),
                percent(it.commission_bps),
                "slashed"
                if it.barred
                else f"{percent(it.next_commission_bps)} in {it.next_from_s - stakes.time_s} s"
                if it.next_from_s > stakes.time_s
                else "",
            )
            for it in stakes.validators
        ],
    )
    say.tell(f"\n{stakes.delegator} has {money(stakes.balance_wei)} to delegate")
    for it in stakes.delegations:
        say.tell(f"behind {it.validator}: {_told(it, stakes)}")


def delegate(
    validator: Which,
    amount: Annotated[str, typer.Argument(help="Tokens, such as 2.5.", show_default=False)],
    *,
    chain: Whose,
    doing: Doing,
) -> None:
    """Put tokens behind a validator."""
    from clusterai.cli.stakeplans import delegating

    amount_wei = _amount(amount)
    at, signer, stakes = _look(chain)
    plan = delegating(stakes, at, stakes.validator(validator), amount_wei)
    _do(at, signer, plan, "Delegate?", doing)


def undelegate(
    validator: Which,
    amount: Annotated[str | None, typer.Argument(help="Tokens, such as 2.5. Default: all of it.")] = None,
    *,
    chain: Whose,
    doing: Doing,
) -> None:
    """Begin to take tokens back; `withdraw` pays them out once the delay is over."""
    from clusterai.cli.stakeplans import undelegating

    amount_wei = None if amount is None else _amount(amount)
    at, signer, stakes = _look(chain)
    plan = undelegating(stakes, stakes.validator(validator), amount_wei)
    _do(at, signer, plan, "Undelegate?", doing)


def withdraw(validator: OrAll = None, *, chain: Whose, doing: Doing) -> None:
    """Pay out undelegated tokens whose delay is over."""
    from clusterai.cli.stakeplans import withdrawing

    at, signer, stakes = _look(chain)
    plan = withdrawing(stakes, None if validator is None else stakes.validator(validator))
    _do(at, signer, plan, "Withdraw?", doing)


def claim(validator: OrAll = None, *, chain: Whose, doing: Doing) -> None:
    """Pay out what tokens behind validators earned."""
    from clusterai.cli.stakeplans import claiming

    at, signer, stakes = _look(chain)
    plan = claiming(stakes, None if validator is None else stakes.validator(validator))
    _do(at, signer, plan, "Claim?", doing)


def commission(
    percent: Annotated[
        str,
        typer.Argument(
            help="What the validator keeps of what delegated stake earns, such as 7.5: at most 30."
        ),
    ],
    *,
    chain: OfValidator,
    doing: Doing,
) -> None:
    """Announce a validator's commission; it holds once the unbonding delay is over."""
    from clusterai.cli.stakeplans import announcing

    bps = _bps(percent)
    at, signer, stakes = _look(chain, "validator.owner.key")
    _do(at, signer, announcing(stakes, bps), "Announce?", doing)


def _look(chain: Whose, default: str = "treasury.key") -> "tuple[Network, Key, Stakes]":
    from clusterai.cli.staking import look

    at, owner = chain.at(), chain.signer(default)
    return at, owner, look(at, owner.address)


def _do(network: "Network", signer: "Key", plan: "Plan", question: str, doing: Doing) -> None:
    from clusterai.cli.staking import carry_out
    from clusterai.protocol.money import show as money

    for sentence in plan.says:
        say.say(sentence)
    if doing.dry_run:
        say.say("nothing was sent")
        return
    options.confirm(question, doing.yes)
    transactions = carry_out(network, signer, plan.calls)
    what = f"{money(plan.amount_wei)}, " if plan.amount_wei else ""
    told = {"amount_wei": plan.amount_wei, "transactions": transactions}
    doing.give(told, f"done: {what}transaction {transactions[-1]}")


def _told(mine: "Delegation", stakes: "Stakes") -> str:
    from clusterai.protocol.money import show as money

    if mine.lost:
        parts = ["lost with its slash"]
    else:
        parts = [f"{money(mine.earning_wei)} earning"]
        if mine.waiting_wei:
            parts.append(f"{money(mine.waiting_wei)} from {max(0, mine.earns_from_s - stakes.time_s)} s on")
        parts += [
            f"{money(it.amount_wei)} to be withdrawn"
            + (f" in {it.ready_s - stakes.time_s} s" if it.ready_s > stakes.time_s else "")
            for it in mine.leaving
        ]
    return ", ".join([*parts, f"{money(mine.earned_wei)} earned"])


def _amount(text: str) -> int:
    from clusterai.protocol.money import BadAmount, parse

    try:
        return parse(text)
    except BadAmount as error:
        raise Failure(f"{text!r} is no amount", str(error), code=Exit.USAGE) from None


def _bps(text: str) -> int:
    from decimal import Decimal, InvalidOperation

    try:
        bps = Decimal(text.removesuffix("%").strip()) * 100
    except InvalidOperation:
        bps = Decimal("NaN")
    if not bps.is_finite() or not 0 <= bps <= 10_000 or bps != bps.to_integral_value():
        why = "a commission is a percentage with at most two places, such as 7.5"
        raise Failure(f"{text!r} is no commission", why, code=Exit.USAGE)
    return int(bps)
