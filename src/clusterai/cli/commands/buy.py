"""`clusterai data buy NAME`: a copy of sold data, paid into escrow, fetched encrypted, opened and checked; `data refund`: the money back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.identity import IdentityFile, asked_at, identity_at
from clusterai.cli.reach import vaults_at

if TYPE_CHECKING:
    from clusterai.cli.datasets.buying import Bought
    from clusterai.protocol.ids import Digest
    from clusterai.sdk.vaults import Listed


def buy(
    dataset: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of a vault, OWNER/NAME, or its id.", show_default=False),
    ],
    to: Annotated[Path, typer.Option(metavar="FILE", help="A new CSV file.", show_default=False)],
    purpose: Annotated[str, typer.Option(help="What for, in words: the owner decides by them.")] = "a copy",
    max_price: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT", help="Most it may cost. Default: the price that is shown.", show_default=False
        ),
    ] = None,
    holder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="Who has its encrypted pieces, beside the vault.", show_default=False
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="Key file of the wallet that pays. Default: the local network's treasury.",
            show_default=False,
        ),
    ] = None,
    network: options.Network = None,
    identity: IdentityFile = None,
    data: options.Data = None,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Buy a copy of data that a vault sells. Run it again to go on after a stop: nothing is paid twice."""
    import asyncio

    from clusterai.cli import asking
    from clusterai.cli.datasets import buying, paying
    from clusterai.cli.names import names_at
    from clusterai.protocol.money import BadAmount, parse
    from clusterai.protocol.money import show as money
    from clusterai.sdk.vaults import ApiError, Unreachable

    try:
        limit_wei = None if max_price is None else parse(max_price)
    except BadAmount as error:
        raise Failure(f"--max-price {max_price}", str(error), code=Exit.USAGE) from None
    if to.exists():
        raise Failure(f"{to} is there already", next="--to a new file", code=Exit.BUSY)
    who, names = identity_at(identity), names_at(identity, data, network)

    async def pay(listed: "Listed", request: "Digest", price_wei: int) -> None:
        await asyncio.to_thread(
            paying.pay, data, network, key, listed.dataset, request, who.address, price_wei
        )

    async def run() -> "Bought":
        async with vaults_at(data, network) as vaults:
            listed, facts = await asking.found(vaults, dataset, names)
            price_wei = buying.priced(listed, facts, limit_wei)
            most_wei = price_wei if limit_wei is None else limit_wei
            if not json:
                say.say(f"[bold]{listed.name}[/]: a copy, for {money(price_wei)}; paid into escrow, once")
            options.confirm("Buy?", yes)
            asking.remember(asked_at(identity), listed.dataset, listed.name)
            return await buying.buy(
                vaults, listed, facts, who, purpose, most_wei, to, tuple(holder or ()), pay, say.say
            )

    try:
        done = asyncio.run(run())
    except (ApiError, Unreachable) as error:
        raise Failure(str(error)) from None
    if json:
        say.emit(done)
        return
    say.tell(done.to)
    say.say(f"{done.rows} rows, checked against what its owner signed")


def refund(
    key: Annotated[
        Path | None,
        typer.Option(
            help="Key file of the wallet that paid. Default: the local network's treasury.",
            show_default=False,
        ),
    ] = None,
    network: options.Network = None,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List the copies that you paid for, and take back what nothing was delivered for in time.

    It asks nobody but the chain: a vault that is gone, or doesn't want to, can't keep the money.
    """
    from datetime import UTC, datetime

    from clusterai.cli.datasets import refunding
    from clusterai.protocol.money import show as money

    found = refunding.refund(data, network, key)
    if json:
        say.emit({"purchases": found})
        return
    if not found:
        say.tell("nothing was bought with this key")
        return
    until = [datetime.fromtimestamp(it.deliver_by_s, UTC).strftime("%Y-%m-%d %H:%M") for it in found]
    say.table(
        ("data set", "#price", "state", "deliver by (UTC)"),
        [(it.dataset, money(it.price_wei), it.state, by) for it, by in zip(found, until, strict=True)],
    )
