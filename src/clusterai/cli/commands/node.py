"""`clusterai node`: can this machine provide, how it joins a network, pauses and leaves it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.commands import nodecards, nodeowner
from clusterai.cli.failure import Exit, Failure, needs_unix

if TYPE_CHECKING:
    from clusterai.node.adapters.watch import Status
    from clusterai.protocol.ids import Address


def join(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Provide: check this machine, join a network, list and explain its nodes.", no_args_is_help=True
    )
    group.command()(doctor)
    group.command(name="join")(join_network)
    group.command()(pause)
    group.command()(resume)
    group.command()(drain)
    nodeowner.join(group)
    nodecards.join(group)
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


def join_network(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]",
            help="A gateway of the network. Without one, that of this machine.",
            show_default=False,
        ),
    ] = None,
    folder: options.NodeFolder = None,
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
    if rent_wei is not None:
        joining.rentable(place)
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
        told, network, is_known = joining.invited(client, place, options.pinned(network_digest))
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
        withheld = joining.withheld(place)
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
                "withheld": withheld,
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
    for it in withheld:
        say.tell(f"  [yellow]it isn't offered to renters[/]: {it}")
    say.tell(f"  its earnings go to that address; what it says: {place.log}")
    say.tell("  → clusterai node explain     → clusterai node earnings     → clusterai node drain")


def _tell_start(owner: "Address", digest: str, folder: Path, config: Path, json: bool) -> None:
    from clusterai.protocol.ids import checksummed

    if json:
        say.emit({"provider": checksummed(owner), "network_digest": digest, "folder": str(folder)})
        return
    say.tell(f"joined as {checksummed(owner)}; not started")
    say.tell(f"  → python -m clusterai.node --config {config}")


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
    folder: options.NodeFolder = None,
    config: options.NodeConfig = None,
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
    folder: options.NodeFolder = None,
    config: options.NodeConfig = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Let this machine's node take nothing new; what runs may end. It stays linked, and paused after a restart too."""
    from clusterai.cli import owning

    _tell_pauses(owning.pause(owning.configuration(folder, config)), json)


def resume(
    folder: options.NodeFolder = None,
    config: options.NodeConfig = None,
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
