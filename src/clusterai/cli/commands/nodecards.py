"""`clusterai node`, seen from outside: which nodes there are, why one gets work, and what was measured and attested of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.runtime.adapters.config import PASSWORD

if TYPE_CHECKING:
    from clusterai.sdk.offershapes import CardView


def join(group: typer.Typer) -> None:
    group.command(name="list")(list_nodes)
    group.command()(explain)
    group.command()(card)
    group.command()(attest)
    group.command()(certify)


def list_nodes(data: options.Data = None, json: options.Json = False, quiet: options.Quiet = False) -> None:
    """List the nodes that a gateway knows, and why one gets no work."""
    from clusterai.cli.reach import gateway
    from clusterai.protocol.money import show as money

    with gateway(data) as client:
        nodes = client.nodes()
    if json:
        say.emit({"nodes": nodes})
        return
    say.table(
        ("provider", "state", "stake", "models", "#running", "#answers", "#first token"),
        [
            (
                it.provider,
                it.state,
                money(it.stake_wei),
                ", ".join(one.name for one in it.models) or "-",
                it.running,
                it.orders_here,
                f"{it.first_token_s * 1000:.0f} ms" if it.first_token_s else "-",
            )
            for it in nodes
        ],
    )


def explain(
    node: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="A provider's address, or how it begins. Without one: this machine's own node.",
            show_default=False,
        ),
    ] = None,
    folder: options.NodeFolder = None,
    config: options.NodeConfig = None,
    gateway: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Ask this gateway about one's own node.", show_default=False),
    ] = None,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Explain why a node gets work or not, each factor with what would change it.

    Of this machine's own node: whether it takes work, how its price, latency and standing rank among others, with the numbers
    that would move it. Of any other: its standing.
    """
    if node is None:
        _explain_own(folder, config, gateway, data, json)
    else:
        _explain_standing(node, data, json)


def _explain_own(
    folder: Path | None, config: Path | None, url: str | None, data: Path | None, json: bool
) -> None:
    from rich.markup import escape

    from clusterai.cli import explaining, explainrent, owning
    from clusterai.node.doctor import running

    made = owning.configuration(folder, config)
    node, why = owning.seen_by_gateway(made, folder, config, url, data)
    found = explaining.explained(made, node, why)
    if made.rentals is not None and node is not None and (status := running(made)) is not None:
        offers = owning.listed_at_gateway(folder, config, url, data)
        found += explainrent.reasons(made, status.hot, offers, bool(status.pauses), status.withheld)
    if json:
        say.emit({"owner": made.owner, "findings": found, "gateway_says": node})
        return
    marks = {"stops": "[red]✗[/]", "limits": "[yellow]![/]", "good": "[green]✓[/]"}
    for it in found:
        say.tell(f"{marks[it.state]} {it.name:<18} {escape(it.found)}")
        if it.cure:
            say.tell(f"  {'':<18} → {escape(it.cure)}")


def _explain_standing(node: str, data: Path | None, json: bool) -> None:
    from clusterai.cli.reach import gateway
    from clusterai.protocol.money import show as money

    with gateway(data) as client:
        found = [it for it in client.nodes() if it.provider.lower().startswith(node.lower())]
    if len(found) != 1:
        why = f"{len(found)} nodes begin so" if found else "no node of this network begins so"
        raise Failure(f"which node is {node}?", why, "clusterai node list", Exit.NOT_FOUND)
    (it,) = found
    if json:
        say.emit(it)
        return
    say.tell(f"{it.provider}  {it.state}")
    say.tell(
        f"stake {money(it.stake_wei)} x quality {it.quality:.2f} (ranks and routes; never lowers an audit rate)"
    )
    for line in it.explained:
        say.tell(f"  {line.value:.2f}  {line.name:<13} {line.found} [dim]({line.source})[/]")
        if line.cure:
            say.tell(f"        {'':<13} → {line.cure}")


def card(
    node: Annotated[
        str | None,
        typer.Argument(metavar="[NODE]", help="Another machine, by its key's address.", show_default=False),
    ] = None,
    folder: options.NodeFolder = None,
    config: options.NodeConfig = None,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show a machine's card: of every field whether it is claimed, measured or attested, by whom and since when.

    Without NODE this machine's own. Its digest stands in the Registry. Validators are drawn for each owner; until one has come, all is claimed.
    """
    from datetime import UTC, datetime

    from clusterai.protocol.ids import hex0x

    proven: frozenset[tuple[str, str]] | None = None
    belongs_to: str | None = None
    if node is not None:
        view = _card_of(node, data)
        digest, operator, key, rows = view.digest, view.operator, view.node, view.lines
        belongs_to = view.belongs_to
        pairs = (it.partition("@") for it in view.proven)
        proven = frozenset((label, by) for label, _, by in pairs)
    else:
        from clusterai.cli import owning
        from clusterai.node.adapters.carding import card_digest, read_card
        from clusterai.protocol.cards import lines

        made = owning.configuration(folder, config)
        found, own = read_card(made.data), card_digest(made.data)
        if found is None or own is None:
            raise Failure(
                "this machine has no card yet",
                "no validator has measured it",
                "clusterai node explain",
                Exit.NOT_FOUND,
            )
        digest, operator, key, rows = hex0x(own), hex0x(found.operator), hex0x(found.node), lines(found)
    if json:
        said = {"digest": digest, "operator": operator, "node": key, "lines": rows}
        say.emit(
            said
            if proven is None
            else said | {"proven": sorted(f"{label}@{by}" for label, by in proven), "belongs_to": belongs_to}
        )
        return
    say.tell(f"card {digest} of {key}")
    for it in rows:
        when = datetime.fromtimestamp(it.at_s, UTC).strftime("%Y-%m-%d %H:%M")
        kind = it.kind
        if kind == "attested" and proven is not None and (it.name, it.by) not in proven:
            kind = "unproven"
        if kind == "declared" and proven is not None and it.value != belongs_to:
            kind = "unproven"
        say.tell(f"  {it.name:<26} {it.value:<28} {kind:<12} {it.by[:10]}… {when}  [dim]{it.note}[/]")


def _card_of(node: str, data: Path | None) -> "CardView":
    """As the gateway has it, if the bytes are those of its digest and of that machine.

    Raises:
        Failure: no such card, or another one.
    """
    import base64

    from clusterai.cli.reach import gateway
    from clusterai.protocol.canonical import Malformed, content_digest
    from clusterai.protocol.cards import decode_card
    from clusterai.protocol.ids import BadId, address, hex0x
    from clusterai.sdk.offers import Offers

    try:
        wanted = address(node)
    except BadId as error:
        raise Failure(
            f"{node[:60]!r} is no address of a machine", str(error), "clusterai offers --json", Exit.USAGE
        ) from None
    with gateway(data) as client:
        view = Offers(client).card(hex0x(wanted))
    try:
        raw = base64.b64decode(view.card, validate=True)
        is_it = decode_card(raw).node == wanted and hex0x(content_digest(raw)) == view.digest
    except (ValueError, Malformed):
        is_it = False
    if not is_it:
        raise Failure("the gateway told another card than it says", code=Exit.UNTRUE)
    return view


def attest(
    subject: Annotated[str, typer.Argument(metavar="OWNER", help="The owner's address whom it is about.")],
    label: Annotated[str, typer.Argument(help="What holds, such as soc2-type2.")],
    key: Annotated[Path, typer.Option(help="Your key's file: hex digits or a keystore.")],
    network: Annotated[Path, typer.Option(help="The network's manifest, network.json.")],
    out: Annotated[Path, typer.Option(help="Where the attestation is written.")],
    days: Annotated[int, typer.Option(min=1, max=3_650, help="How long it holds.")] = 365,
    document: Annotated[
        Path | None, typer.Option(help="What says so at length; its digest is signed.", show_default=False)
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Sign that something holds of an owner of machines, for renters who trust your key.

    The owner puts it on its card by `clusterai node certify FILE`; renters ask for it by `--attested LABEL@YOUR_ADDRESS`. A
    keystore's password is read from CLUSTERAI_KEY_PASSWORD.
    """
    import os

    from clusterai.cli import certifying
    from clusterai.protocol.ids import BadId, address

    try:
        owner = address(subject)
    except BadId as error:
        raise Failure(f"{subject[:60]!r} is no address", str(error), code=Exit.USAGE) from None
    made = certifying.attest(network, key, os.environ.get(PASSWORD), owner, label, days, document)
    try:
        out.write_bytes(made)
    except OSError as error:
        raise Failure(f"{out} can't be written", error.strerror or "", code=Exit.USAGE) from None
    say.say(f"give {out} to the owner: clusterai node certify {out}")


def certify(
    file: Annotated[Path, typer.Argument(help="An attestation about this node's owner.")],
    folder: options.NodeFolder = None,
    config: options.NodeConfig = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Put an attestation on this machine's card: one about its account, or about the owner that it was declared to belong to.

    A node that runs tells its gateways at once, and has the card's new digest written to the Registry."""
    from clusterai.cli import certifying, owning
    from clusterai.protocol.ids import Address, checksummed

    found, path = certifying.certify(owning.configuration(folder, config), file)
    if json:
        say.emit(
            {
                "label": found.label,
                "attestor": checksummed(Address(found.attestor)),
                "expires_s": found.expires_s,
                "path": str(path),
            }
        )
    else:
        say.tell(f"{found.label}, attested by {checksummed(Address(found.attestor))}, lies in {path}")
        say.tell("  → a node that runs tells its gateways within seconds; others when they start")
