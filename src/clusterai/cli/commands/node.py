"""`clusterai node`: can this machine provide, how it joins a network and leaves it, and how nodes stand there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure, needs_unix
from clusterai.runtime.adapters.config import PASSWORD

if TYPE_CHECKING:
    from clusterai.node.adapters.watch import Status
    from clusterai.protocol.ids import Address, Digest
    from clusterai.sdk.offershapes import CardView


def join(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Provide: check this machine, join a network, list and explain its nodes.", no_args_is_help=True
    )
    group.command()(doctor)
    group.command(name="join")(join_network)
    group.command()(pause)
    group.command()(resume)
    group.command()(drain)
    group.command()(earnings)
    group.command()(machines)
    group.command()(declare)
    group.command()(collect)
    group.command(name="list")(list_nodes)
    group.command()(explain)
    group.command()(card)
    group.command()(attest)
    group.command()(certify)
    app.add_typer(group, name="node")


def doctor(
    data: options.Data = None,
    model: Annotated[str, typer.Option(help="The model that it should serve.")] = "smollm2-135m",
    config: Annotated[
        Path | None, typer.Option(help="A node's own configuration file.", show_default=False)
    ] = None,
    gateway: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Measure the way to this gateway. Default: the one that was joined.",
            show_default=False,
        ),
    ] = None,
    validator: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG",
            help="Check a validator's liquid money against the bonds of audits instead.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Check whether this machine can provide. Each red row names its cure. Exit code 6: there is a red row."""
    from clusterai.cli import doctor as checks

    rows = checks.examine(options.folder(data), model, config, gateway, validator)
    return Exit.OK if say.rows(rows, json) else Exit.UNTRUE


Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="DIR",
        help="Where the node lives. Default: clusterai/node in your data folder.",
        show_default=False,
    ),
]


Configured = Annotated[
    Path | None,
    typer.Option("--config", help="The file of a node that was set up by hand.", show_default=False),
]


OwnerKey = Annotated[
    Path | None,
    typer.Option(
        help="The owner's key file; a keystore's password comes from CLUSTERAI_KEY_PASSWORD. Default: owner.key in the folder.",
        show_default=False,
    ),
]


def join_network(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]",
            help="A gateway of the network. Without one, that of this machine.",
            show_default=False,
        ),
    ] = None,
    folder: Folder = None,
    owner_key: Annotated[
        Path | None,
        typer.Option(
            help="The owner's key file; without it, one is made in the folder. A keystore's password comes from CLUSTERAI_KEY_PASSWORD.",
            show_default=False,
        ),
    ] = None,
    machine: Annotated[
        int,
        typer.Option(
            help="Which of the owner's machines this is: from 2 on each has an account of its own, derived from --owner-key, "
            "and its card says whose it is.",
            min=1,
            max=1_000,
        ),
    ] = 1,
    stake: Annotated[float, typer.Option(help="Tokens at stake, at least.", min=0.0)] = 1000.0,
    model: Annotated[
        list[str] | None, typer.Option(help="A model to serve; again for another.", show_default=False)
    ] = None,
    jobs: Annotated[bool, typer.Option(help="Lend the machine to jobs, too.")] = True,
    rent: Annotated[
        str | None,
        typer.Option(
            metavar="PRICE",
            help="Offer the machine whole, at so many CLAI an hour; `rentals` in node.json says more.",
            show_default=False,
        ),
    ] = None,
    network_digest: Annotated[
        str | None,
        typer.Option(
            metavar="0x…",
            help="Join only the network whose manifest has this digest: get it from somebody you trust.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        bool,
        typer.Option(help="Start the node; without, something else does: systemd, a container."),
    ] = True,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Join a network with this machine. It needs no open port; the node goes on when this command ends."""
    import asyncio
    import time

    from clusterai.cli import joining
    from clusterai.cli import machines as owned
    from clusterai.cli.reach import gateway
    from clusterai.cli.settings import default_node
    from clusterai.ledger.adapters.derived import machine_key
    from clusterai.protocol.ids import checksummed, hex0x
    from clusterai.protocol.money import WEI_PER_TOKEN

    needs_unix("clusterai node join")
    begin = time.monotonic()
    rent_wei = _hour_price(rent)
    place = joining.NodeFolder(folder or default_node())
    if machine > 1 and owner_key is None:
        raise Failure(
            f"--machine {machine} is one of an owner's",
            "its account is derived from the owner's key",
            "name that by --owner-key FILE: of the first machine it is owner.key in its folder",
            Exit.USAGE,
        )
    if (pid := place.running()) is not None:
        raise Failure(f"a node runs in {place.root} already, process {pid}", next="clusterai node drain")
    with gateway(data, url=url) as client:
        told, network, is_known = joining.invited(client, place, _pinned(network_digest))
        digest = hex0x(joining.network_digest(network))
        main = joining.owner_key(place, owner_key)
        owner = machine_key(main, machine)
        if machine > 1:
            joining.kept_apart(place, owner.address)
        purse = joining.faucet_of(options.folder(data), network)
        stake_wei = round(stake * WEI_PER_TOKEN)
        joiner = asyncio.run(
            joining.examined(place, network, owner, stake_wei, purse, main if machine > 1 else None)
        )
        models = model or list(client.status().models)[:1]
        if not json:
            known = "as you asked" if network_digest else "as before" if is_known else "as this gateway says"
            say.tell(f"network {digest}, {known}")
            if not is_known:
                say.tell("  → compare it with what the network publishes: your stake goes where it says")
            for step in (
                *joiner.steps,
                *(
                    [f"say that it is machine {machine} of {checksummed(main.address)}: both keys sign"]
                    if machine > 1
                    else []
                ),
                f"serve {', '.join(models)}{' and jobs' if jobs else ''} from {place.root}",
                *([] if rent is None else [f"offer the machine to renters at {rent} CLAI an hour"]),
            ):
                say.tell(f"  • {step}")
        elif dry_run:
            say.emit(
                {
                    "network_digest": digest,
                    "steps": joiner.steps,
                    "models": models,
                    "folder": str(place.root),
                }
            )
        if dry_run:
            return
        if start:
            joining.alone(client.nodes, owner.address, key=str(owner_key or place.owner), machine=machine)
        options.confirm("Go on?" if is_known else "Is this the network that you mean?", yes)
        asyncio.run(joining.settled(joiner))
        joining.configured(place, joiner, told, models, jobs, client.base_url, rent_wei)
        if machine > 1:
            owned.declare(place, main, owner, network)
        if not start:
            _tell_start(joiner.owner.address, digest, place.root, place.config, json)
            return
        process = joining.started(place)
        node = joining.listed(client, place, joiner, process)
        pauses = () if node.state == "ready" else joining.pauses(place)
    took = time.monotonic() - begin
    if json:
        say.emit(
            {
                "provider": node.provider,
                "network_digest": digest,
                "pid": process.pid,
                "folder": str(place.root),
                "listed_after_s": round(took, 1),
                "paused": [it.said for it in pauses],
            }
        )
        return
    say.tell(f"[green]listed[/] as {node.provider} after {took:.1f} s; it runs as process {process.pid}")
    if machine > 1:
        say.tell(
            f"  machine {machine} of {checksummed(main.address)}; its money comes there by clusterai node collect"
        )
    for it in pauses:
        say.tell(f"  [yellow]it takes nothing new now[/]: {it.said}")
        say.tell(f"  → {it.cure}")
    say.tell(f"  its earnings go to that address; what it says: {place.log}")
    say.tell("  → clusterai node explain     → clusterai node earnings     → clusterai node drain")


def _tell_start(owner: "Address", digest: str, folder: Path, config: Path, json: bool) -> None:
    from clusterai.protocol.ids import checksummed

    if json:
        say.emit({"provider": checksummed(owner), "network_digest": digest, "folder": str(folder)})
        return
    say.tell(f"joined as {checksummed(owner)}; not started")
    say.tell(f"  → python -m clusterai.node --config {config}")


def _pinned(text: str | None) -> "Digest | None":
    from clusterai.protocol.ids import BadId, digest

    try:
        return None if text is None else digest(text)
    except BadId as error:
        raise Failure(
            "--network-digest isn't one", str(error), "it is 0x and 64 hex digits", Exit.USAGE
        ) from None


def _hour_price(text: str | None) -> int | None:
    from clusterai.protocol.money import BadAmount, parse
    from clusterai.protocol.offers import MOST_PRICE_WEI

    if text is None:
        return None
    try:
        found = parse(text)
    except BadAmount as error:
        raise Failure(f"--rent {text}", str(error), code=Exit.USAGE) from None
    if found > MOST_PRICE_WEI:
        raise Failure(f"--rent {text}", "nobody is charged that much an hour", code=Exit.USAGE)
    return found


def drain(
    folder: Folder = None,
    config: Configured = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Stop this machine's node once its running answers have ended. What it is owed stays owed; `join` goes on."""
    from clusterai.cli import joining, owning
    from clusterai.cli.settings import default_node

    needs_unix("clusterai node drain")
    place = joining.NodeFolder(folder or default_node())
    if config is not None:
        ran, where = owning.drain(owning.configuration(None, config)), config
    else:
        ran, where = joining.stopped(place), place.root
    if json:
        say.emit({"stopped": ran, "folder": str(where)})
    elif not ran:
        say.tell(f"no node runs in {where}")
    elif config is not None:
        say.tell("stopped; its stake stays bonded")
    else:
        say.tell(f"stopped; its stake stays bonded, and [bold]clusterai node join[/] goes on from {where}")


def pause(
    folder: Folder = None,
    config: Configured = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Let this machine's node take nothing new; what runs may end. It stays linked, and paused after a restart too."""
    from clusterai.cli import owning

    _tell_pauses(owning.pause(owning.configuration(folder, config)), json)


def resume(
    folder: Folder = None,
    config: Configured = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Let this machine's node take work again, as far as its hours allow."""
    from clusterai.cli import owning

    _tell_pauses(owning.resume(owning.configuration(folder, config)), json)


def _tell_pauses(status: "Status", json: bool) -> None:
    if json:
        say.emit({"pauses": status.pauses, "running": status.running})
        return
    for it in status.pauses:
        say.tell(f"takes nothing new: {it.said}")
        say.tell(f"  → {it.cure}")
    if not status.pauses:
        say.tell("takes work")
    elif status.running:
        say.tell(f"{status.running} orders still run, and may end")


def earnings(
    folder: Folder = None,
    config: Configured = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="Only of the last 7d, 24h, 4w.", show_default=False),
    ] = None,
    all_machines: Annotated[
        bool,
        typer.Option("--all", help="Of all machines of the owner, a line for each; the chain is asked."),
    ] = False,
    owner_key: OwnerKey = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what this machine's node earned: by day and kind of work, and how far it is on its way to its owner.

    owed: no voucher yet. vouched: a gateway signed for it. committed: its epoch is on chain. held: claimed, for the audit
    window. settled: the owner's. vesting: a newcomer's tenth of a job. forfeited: disputed, broken, or lost by a conviction.
    """
    import time

    from clusterai.cli import earned, owning
    from clusterai.ledger.adapters.network import BadNetwork, load_network
    from clusterai.node.adapters.earnings import report

    first = earned.first_day(since, time.time())
    if all_machines or owner_key is not None:
        _earned_together(folder, owner_key, first, json)
        return
    made = owning.configuration(folder, config)
    try:
        found = report(made.data, made.owner_address(), load_network(made.network))
    except BadNetwork as error:
        raise Failure("the network's manifest can't be used", str(error)) from None
    if json:
        say.emit(earned.as_json(found, first))
    else:
        earned.tell(found, first)


def _earned_together(folder: Path | None, owner_key: Path | None, first: int | None, json: bool) -> None:
    """Of the machine in the folder by its books, of the others by the chain."""
    import time

    from clusterai.cli import earned, owning
    from clusterai.cli import machines as owned
    from clusterai.cli.joining import NodeFolder
    from clusterai.cli.settings import default_node
    from clusterai.node.adapters.earnings import on_chain, report
    from clusterai.protocol.ids import address

    place = NodeFolder(folder or default_node())
    owner = owned.owner_at(place, owner_key)
    made = owning.configuration(folder, None) if place.config.exists() else None
    mine = owned.machines(owner)
    told = owned.history(owner.network)
    found: list[earned.OfMachine] = []
    for it in mine.machines:
        account = address(it.account)
        here = made is not None and made.owner_address() == account
        books = (
            report(made.data, account, owner.network)
            if made is not None and here
            else on_chain(account, owner.network, told, time.time())
        )
        found.append(earned.OfMachine(it.number, it.account, here, books))
    if json:
        say.emit(earned.together_json(mine.owner, found, first))
    else:
        earned.tell_together(mine.owner, found, first)


def machines(
    folder: Folder = None,
    owner_key: OwnerKey = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List all machines of an owner, wherever they stand: stake, state, and what their accounts hold."""
    from clusterai.cli import machines as owned
    from clusterai.cli.joining import NodeFolder
    from clusterai.cli.reach import gateway
    from clusterai.cli.settings import default_node
    from clusterai.protocol.money import show as money

    place = NodeFolder(folder or default_node())
    found = owned.machines(owned.owner_at(place, owner_key))
    with gateway(None, url=place.gateway.read_text().strip()) as client:
        states = owned.states(found, client.nodes())
    if json:
        say.emit({"owner": found.owner, "machines": found.machines, "states": states})
        return
    say.tell(f"machines of {found.owner}")
    say.table(
        ("#machine", "account", "state", "#stake", "#leaving", "#held"),
        [
            (
                it.number,
                it.account,
                "convicted" if it.barred else states[it.number],
                money(it.stake_wei),
                money(it.unbonding_wei) if it.unbonding_wei else "-",
                money(it.free_wei),
            )
            for it in found.machines
        ],
    )


def declare(
    folder: Folder = None,
    owner_key: OwnerKey = None,
    withdraw: Annotated[
        bool,
        typer.Option(
            "--withdraw", help="Take it back: from now on the machine counts as its account's alone."
        ),
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say anew, for a year, whose machine this is; or say it no more.

    For machines of an owner of several; `node join --machine` says it the first time. Gateways hear of it when the node links to them next, and
    with its next measurement.
    """
    from clusterai.cli import machines as owned
    from clusterai.cli import owning
    from clusterai.cli.joining import NodeFolder
    from clusterai.cli.settings import default_node
    from clusterai.protocol.ids import checksummed

    place = NodeFolder(folder or default_node())
    config = owning.configuration(folder, None)
    if withdraw:
        was = owned.withdrawn(place)
        if json:
            say.emit({"withdrawn": was})
        else:
            say.tell("it says no more whose it is" if was else "it said of nobody that it is theirs")
        return
    owner = owned.owner_at(place, owner_key)
    number = owned.declared(place, config.owner_address(), owner)
    if json:
        say.emit({"machine": number, "owner": checksummed(owner.key.address), "days": owned.DAYS})
    else:
        say.tell(f"machine {number} of {checksummed(owner.key.address)}, for {owned.DAYS} days")


def collect(
    folder: Folder = None,
    owner_key: OwnerKey = None,
    leave: Annotated[
        int | None,
        typer.Option(
            metavar="MACHINE",
            help="Take all stake of this machine out, too; once it has unbonded, collect again. Drain the machine first.",
            min=1,
            max=1_000,
            show_default=False,
        ),
    ] = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Bring what an owner's machines earned to the owner: all that their accounts hold, and stake that has unbonded."""
    from clusterai.cli import machines as owned
    from clusterai.cli.joining import NodeFolder
    from clusterai.cli.settings import default_node
    from clusterai.protocol.money import show as money

    owner = owned.owner_at(NodeFolder(folder or default_node()), owner_key)
    plan = owned.collecting(owner.key, owned.machines(owner), leave)
    if not json:
        for sentence in plan.says or ("there is nothing to bring",):
            say.tell(f"  • {sentence}")
    sent: list[str] = []
    if plan.calls and not dry_run:
        options.confirm("Go on?", yes)
        sent = owned.sent(owner, plan)
    if json:
        say.emit({"steps": plan.says, "amount_wei": plan.amount_wei, "transactions": sent})
    elif sent:
        say.tell(f"done: {money(plan.amount_wei)}, {len(sent)} transactions")


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
    folder: Folder = None,
    config: Configured = None,
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
        found += explainrent.reasons(made, status.hot, offers, bool(status.pauses))
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
    folder: Folder = None,
    config: Configured = None,
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
    folder: Folder = None,
    config: Configured = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Put an attestation on this machine's card. Gateways hear of it when the node links to them next, and with its next measurement."""
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
        say.tell(
            "  → gateways hear of it when the node links next: clusterai node drain, then clusterai node join"
        )
