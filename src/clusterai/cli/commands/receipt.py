"""`clusterai receipt show ID`, `clusterai receipt list`: who did what for how much, and how far it is verified."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.reach import gateway

if TYPE_CHECKING:
    from clusterai.sdk import Receipt

MEANING = {
    "paid": "paid by voucher; its epoch isn't committed on chain yet",
    "committed": "its epoch's root is on chain; the beacon decides what is audited",
    "verified": "its epoch was audited and cleared",
    "settled": "paid out on chain; nothing undoes it",
    "convicted": "its provider was convicted; the refund is under way",
    "refunded": "its provider was convicted, and the price came back",
}

ReceiptId = Annotated[
    str, typer.Argument(metavar="ID", help="A receipt's id, 0x and 64 hex digits.", show_default=False)
]


def join(app: typer.Typer) -> None:
    group = typer.Typer(help="Look at receipts.", no_args_is_help=True)
    group.command(name="list")(list_receipts)
    group.command()(show)
    app.add_typer(group, name="receipt")


def list_receipts(
    data: options.Data = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, newest first.")] = 20,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List this account's receipts, newest first."""
    from clusterai.protocol.money import show as money

    with gateway(data) as client:
        receipts = client.receipts(limit=limit)
    if json:
        say.emit({"receipts": receipts})
        return
    say.table(
        ("receipt", "state", "model", "#in", "#out", "#price", "provider"),
        [
            (
                it.id,
                it.state,
                it.model_name or it.model[:10],
                it.input_units,
                it.output_units,
                money(it.price_wei),
                it.provider[:10],
            )
            for it in receipts
        ],
    )


def show(
    receipt_id: ReceiptId,
    data: options.Data = None,
    network: options.Network = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show one receipt: who did what for how much, whether it is verified, and where the chain says so."""
    import msgspec

    from clusterai.cli.onchain import transactions

    with gateway(data) as client:
        receipt = client.receipt(receipt_id)
    found = transactions(network or options.folder(data).manifest, receipt)
    if json:
        say.emit({**msgspec.to_builtins(receipt), "transactions": found if isinstance(found, list) else None})
        return
    say.pairs(rows(receipt))
    if isinstance(found, str):
        say.complain(f"the chain wasn't asked for transactions: {found}")
    else:
        said = [(it.what, it.block, it.hash, it.note) for it in found]
        say.table(("transaction", "#block", "hash", ""), said)
    say.say(f"\ncheck it yourself:  clusterai audit replay {receipt.id}")


def rows(receipt: "Receipt") -> list[tuple[str, object]]:
    from clusterai.protocol.money import show as money

    label = receipt.numbers.get
    found: list[tuple[str, object]] = [
        ("receipt", receipt.id),
        ("state", f"{receipt.state}: {MEANING.get(receipt.state, '')}"),
        ("when", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(receipt.at_s))),
        ("model", f"{receipt.model_name or '?'}  {receipt.model}"),
        ("provider", receipt.provider),
        ("gateway", receipt.gateway),
        (
            "usage",
            f"{receipt.input_units} in, {receipt.output_units} out ({label('input_units', 'claimed')})",
        ),
        ("price", f"{money(receipt.price_wei)} ({label('price_wei', 'claimed')})"),
    ]
    if receipt.refunded_wei:
        found.append(("refunded", f"{money(receipt.refunded_wei)} ({label('refunded_wei', 'settled')})"))
    chain = receipt.epoch_on_chain
    found += [
        ("epoch", receipt.epoch),
        ("on chain", "not yet" if chain is None else f"{chain['state']} in block {chain['block']}"),
        *((f"  {name}", value) for name, value in _detail(chain).items()),
        ("channel", receipt.channel),
        ("leaf", receipt.leaf),
        ("answer's digest", receipt.answer),
        ("signature", receipt.signature),
    ]
    return found


def _detail(chain: dict[str, object] | None) -> dict[str, object]:
    detail = chain.get("detail") if chain else None
    if not isinstance(detail, dict):
        return {}
    shown = ("root", "count", "total", "audited", "evidence", "slashed", "index")
    return {name: detail[name] for name in shown if name in detail}  # pyright: ignore[reportUnknownVariableType]
