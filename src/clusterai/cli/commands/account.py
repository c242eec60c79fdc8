"""`clusterai account`, `account fund`, `account keys`: what there is to spend, and the keys that spend it."""

from typing import Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.reach import gateway


def join(app: typer.Typer) -> None:
    group = typer.Typer(help="Credit and API keys of an account.", invoke_without_command=True)
    group.callback()(account)
    group.command()(fund)
    group.command()(keys)
    app.add_typer(group, name="account")


def account(
    ctx: typer.Context, data: options.Data = None, json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Show an account: its credit and where it went; `fund` adds to it, `keys` makes keys."""
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
            ("  charged", f"{money(found.charged_wei)} ({label('charged_wei', '')})"),
            ("  held", f"{money(found.held_wei)} for answers that run now"),
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
    from clusterai.protocol.money import BadAmount, parse
    from clusterai.protocol.money import show as money

    try:
        amount_wei = parse(amount)
    except BadAmount as error:
        raise Failure(
            f"{amount!r} is no amount", str(error), "clusterai account fund 2.5", Exit.USAGE
        ) from None
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
