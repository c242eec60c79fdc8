"""`clusterai account` and `fund`, `withdraw`, `keys`: what there is to spend, its way in and out, and the keys that spend it."""

from pathlib import Path
from typing import Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.reach import gateway


def join(app: typer.Typer) -> None:
    group = typer.Typer(help="Credit and API keys of an account.", invoke_without_command=True)
    group.callback()(account)
    group.command()(fund)
    group.command()(withdraw)
    group.command()(keys)
    app.add_typer(group, name="account")


def account(
    ctx: typer.Context, data: options.Data = None, json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Show an account: its credit and where it went; `fund` adds to it, `withdraw` takes it back, `keys` makes keys."""
    if ctx.invoked_subcommand is not None:
        return
    from clusterai.protocol.money import show as money

    with gateway(data) as client:
        found = client.account()
    if json:
        say.emit(found)
        return
    label = found.numbers.get
    say.pairs(
        [
            ("account", found.account),
            ("credit", f"{money(found.credit_wei)}"),
            ("  funded", f"{money(found.funded_wei)} ({label('funded_wei', '')})"),
            (
                "  charged",
                f"{money(found.charged_wei)} for answers and rented time ({label('charged_wei', '')})",
            ),
            ("  held", f"{money(found.held_wei)} for answers and rented time under way"),
            ("  jobs", f"{money(found.tabbed_wei)}, with what is set aside for open ones"),
            ("  withdrawn", f"{money(found.withdrawn_wei)}"),
            ("refunded", f"{money(found.refunded_wei)} by convictions, already taken off what was charged"),
            *(("key", f"{key.id}  {key.name}") for key in found.keys),
        ]
    )
    folder = options.folder(data)
    if folder.account.exists():
        say.say(f"\nthe first key lies in {folder.account}")


def fund(
    amount: Annotated[str, typer.Argument(help="Tokens, such as 2.5.", show_default=False)],
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
) -> None:
    """Put money of the local network's faucet on the account, by a deposit on its chain."""
    import asyncio

    from clusterai.cli.local import faucet
    from clusterai.protocol.money import show as money

    amount_wei = _amount(amount, "clusterai account fund 2.5")
    folder = options.folder(data)
    folder.running()
    target = folder.local_account()
    if dry_run:
        say.say(f"would deposit {money(amount_wei)} on account {target.account}")
        return
    options.confirm(f"Deposit {money(amount_wei)} of the faucet's money?", yes)
    transaction = asyncio.run(faucet.deposit(folder, target, amount_wei))
    if json:
        say.emit({"account": target.account, "amount_wei": amount_wei, "transaction": transaction})
    else:
        say.tell(f"deposited {money(amount_wei)} in transaction {transaction}")


def withdraw(
    amount: Annotated[
        str | None, typer.Argument(help="Tokens, such as 2.5. Default: all that may be withdrawn.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="Key of the address that paid in, whose password (where it is a keystore) is CLUSTERAI_KEY_PASSWORD. "
            "Default: the local network's faucet.",
            show_default=False,
        ),
    ] = None,
    wallet: Annotated[
        bool,
        typer.Option(
            "--wallet",
            help="What payments with requests (x402) left of the address's own account; needs no API key.",
        ),
    ] = False,
    to: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where it goes. Default: the address that paid in.")
    ] = None,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
) -> None:
    """Take unspent credit back, on chain: up to what that address put on the account."""
    from clusterai.cli.payback import NotPaid, payer, signed, until_paid
    from clusterai.protocol.ids import hex0x
    from clusterai.protocol.money import show as money

    most_wei = _amount(amount, "clusterai account withdraw 2.5") if amount is not None else None
    signer = payer(key, options.folder(data))
    with gateway(data) as client:
        wish, signature = signed(client, signer, most_wei, to, own=wallet)
        what = "all that may be withdrawn" if most_wei is None else f"up to {money(most_wei)}"
        if dry_run:
            say.say(f"would withdraw {what} of account {hex0x(wish.account)} to {hex0x(wish.to)}")
            return
        options.confirm(f"Withdraw {what} to {hex0x(wish.to)}?", yes)
        try:
            found = until_paid(client, client.withdraw(wish, signature))
        except NotPaid as error:
            raise Failure(
                f"withdrawal {error.name} is owed and isn't paid yet", error.why, "clusterai account"
            ) from None
    if json:
        say.emit(found)
    else:
        by = f" in transaction {found.transaction}" if found.transaction else ""
        say.tell(f"{money(found.amount_wei)} went to {found.to}{by}")


def _amount(text: str, example: str) -> int:
    from clusterai.protocol.money import BadAmount, parse

    try:
        return parse(text)
    except BadAmount as error:
        raise Failure(f"{text!r} is no amount", str(error), example, Exit.USAGE) from None


def keys(
    data: options.Data = None,
    new: Annotated[
        str | None, typer.Option(metavar="NAME", help="Make a key that spends from this account.")
    ] = None,
    revoke: Annotated[str | None, typer.Option(metavar="ID", help="Revoke a key, for good.")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    yes: options.Yes = False,
) -> None:
    """List the account's API keys, make one, or revoke one."""
    with gateway(data, admin=True) as admin:
        if new is not None:
            made = admin.make_key(new, options.folder(data).local_account().account)
            if json:
                say.emit(made)
            else:
                say.tell(made.key)
                say.say(f"{made.id}: shown this once")
        elif revoke is not None:
            options.confirm(f"Revoke {revoke}? Programs that use it will fail.", yes)
            admin.revoke_key(revoke)
            say.say(f"{revoke} is revoked")
        else:
            found = admin.keys()
            if json:
                say.emit({"keys": found})
            else:
                say.table(
                    ("id", "name", "scopes", "account"),
                    [(it.id, it.name, ", ".join(it.scopes), it.account) for it in found],
                )
