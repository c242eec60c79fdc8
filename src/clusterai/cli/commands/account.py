"""`clusterai account` and `open`, `fund`, `withdraw`, `keys`: what there is to spend, its way in and out, and the keys that spend it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.reach import gateway

if TYPE_CHECKING:
    from clusterai.protocol.ids import Address


def join(app: typer.Typer) -> None:
    group = typer.Typer(help="Credit and API keys of an account.", invoke_without_command=True)
    group.callback()(account)
    group.command(name="open")(open_account)
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


def open_account(
    name: Annotated[str, typer.Argument(help="What you call its first key.", show_default=False)],
    credit: Annotated[
        str, typer.Option(metavar="CLAI", help="What the local network's faucet puts on it.")
    ] = "10",
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    yes: options.Yes = False,
) -> None:
    """Open an account at this machine's gateway for somebody else: prints what they need to use the network."""
    import asyncio

    from clusterai.cli.local import faucet
    from clusterai.protocol.ids import digest
    from clusterai.protocol.money import show as money

    amount_wei = _amount(credit, "clusterai account open alice --credit 10")
    folder = options.folder(data)
    folder.running()
    options.confirm(f"Open an account for {name} with {money(amount_wei)} of the faucet's money?", yes)
    with gateway(data, admin=True) as admin:
        made = admin.make_key(name)
        url = admin.base_url
    if amount_wei:
        asyncio.run(faucet.deposit(folder, digest(made.account), amount_wei))
    if json:
        say.emit(made)
        return
    print(f"export OPENAI_BASE_URL={url}/v1")
    print(f"export OPENAI_API_KEY={made.key}", flush=True)
    say.say(f"account {made.account} with {money(amount_wei)}; the key is shown this once")


def fund(
    amount: Annotated[str, typer.Argument(help="Tokens, such as 2.5.", show_default=False)],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="0x…",
            help="An address that gets the tokens themselves, such as the stake of a machine that joins from elsewhere; or an account of this gateway. "
            "Default: the first account.",
            show_default=False,
        ),
    ] = None,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
) -> None:
    """Put money of the local network's faucet on an account, by a deposit on its chain; or give it to an address there."""
    import asyncio

    from clusterai.cli.local import faucet
    from clusterai.protocol import ids
    from clusterai.protocol.money import show as money

    amount_wei = _amount(amount, "clusterai account fund 2.5")
    folder = options.folder(data)
    folder.running()
    name = to or folder.local_account().account
    receiver = _receiver(name)
    where = f"on account {name}" if receiver is None else f"with {ids.checksummed(receiver)}"
    if dry_run:
        say.say(f"would deposit {money(amount_wei)} {where}")
        return
    options.confirm(f"Deposit {money(amount_wei)} of the faucet's money {where}?", yes)
    if receiver is None:
        transaction = asyncio.run(faucet.deposit(folder, ids.digest(name), amount_wei))
    else:
        transaction = asyncio.run(faucet.give(folder, receiver, amount_wei))
    if json:
        say.emit(
            {
                "account" if receiver is None else "address": name,
                "amount_wei": amount_wei,
                "transaction": transaction,
            }
        )
    else:
        say.tell(f"deposited {money(amount_wei)} {where} in transaction {transaction}")


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


def _receiver(name: str) -> "Address | None":
    """The address that is named; None: it is an account.

    Raises:
        Failure: it is neither.
    """
    from clusterai.protocol import ids

    try:
        return ids.address(name)
    except ValueError:
        pass
    try:
        ids.digest(name)
    except ValueError as error:
        raise Failure(
            f"{name} is no address and no account", str(error), "clusterai account", Exit.USAGE
        ) from None
    return None


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
