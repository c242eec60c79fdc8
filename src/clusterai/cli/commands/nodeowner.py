"""`clusterai node`, for who owns several: what they earned, which they are, and their money in one place."""

from pathlib import Path
from typing import Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Failure


def join(group: typer.Typer) -> None:
    group.command()(earnings)
    group.command()(machines)
    group.command()(declare)
    group.command()(collect)
    group.command()(rented)


def earnings(
    folder: options.NodeFolder = None,
    config: options.NodeConfig = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="Only of the last 7d, 24h, 4w.", show_default=False),
    ] = None,
    all_machines: Annotated[
        bool,
        typer.Option("--all", help="Of all machines of the owner, a line for each; the chain is asked."),
    ] = False,
    owner_key: options.OwnerKey = None,
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
    folder: options.NodeFolder = None,
    owner_key: options.OwnerKey = None,
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
    folder: options.NodeFolder = None,
    owner_key: options.OwnerKey = None,
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

    For machines of an owner of several; `node join --machine` says it the first time. A node that runs tells its gateways
    within seconds.
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
    folder: options.NodeFolder = None,
    owner_key: options.OwnerKey = None,
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


def rented(
    folder: options.NodeFolder = None,
    config: options.NodeConfig = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List the rented time that gateways signed for, newest first: with this machine's receipts, the word of both sides.

    Each line is all of one stay: until when, for which gateway, how long it was proven to be its tenant's, and the head of its heartbeats.
    """
    from datetime import UTC, datetime

    from clusterai.cli import owning
    from clusterai.node.adapters.countersigned import Countersigned
    from clusterai.protocol.canonical import Malformed
    from clusterai.protocol.ids import Address, checksummed, hex0x
    from clusterai.protocol.units import show_duration

    made = owning.configuration(folder, config)
    try:
        found = Countersigned(made.data).all()
    except (OSError, Malformed) as error:
        raise Failure("what was signed for can't be read", str(error)) from None
    if json:
        stays = [
            {
                "lease": hex0x(it.lease),
                "place": it.place,
                "generation": it.generation,
                "gateway": checksummed(Address(it.gateway)),
                "at_s": it.at_s,
                "tenths": it.said.tenths,
                "head": hex0x(it.said.head),
                "signature": hex0x(it.signature),
            }
            for it in found
        ]
        say.emit({"stays": stays})
        return
    say.table(
        ("until", "rental", "#place", "gateway", "#proven", "head"),
        [
            (
                datetime.fromtimestamp(it.at_s, UTC).strftime("%Y-%m-%d %H:%M"),
                hex0x(it.lease)[:14],
                it.place,
                checksummed(Address(it.gateway)),
                show_duration(it.said.tenths // 10),
                hex0x(it.said.head)[:14],
            )
            for it in found
        ],
    )
