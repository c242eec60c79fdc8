"""`clusterai rent [list|show|extend|release|logs|env|connect|disconnect|shell|notebook]`: whole machines by the hour, as one Ray cluster."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.reach import gateway

if TYPE_CHECKING:
    from clusterai.cli.renting.folder import KeeperState, RentalFolder
    from clusterai.sdk import Client
    from clusterai.sdk.offershapes import PlanRequest, RentalPlan
    from clusterai.sdk.rentalshapes import Rental, Setup

Id = Annotated[
    str,
    typer.Argument(metavar="ID", help="A rental's id, or the beginning of it.", show_default=False),
]
Place = Annotated[int, typer.Option(min=0, max=62, help="Which of its machines; 0 is the head.")]
NetNs = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Put this end of the mesh into a network namespace (ip netns add NAME).",
        show_default=False,
    ),
]


def join(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Rent whole machines by the hour, as one Ray cluster.", invoke_without_command=True
    )
    group.callback()(rent)
    group.command("list")(list_rentals)
    group.command()(show)
    group.command()(extend)
    group.command()(release)
    group.command()(logs)
    group.command()(env)
    group.command()(connect)
    group.command()(disconnect)
    group.command()(shell)
    group.command()(notebook)
    app.add_typer(group, name="rent")


def rent(
    ctx: typer.Context,
    nodes: Annotated[int, typer.Option(min=1, max=63, help="How many machines; the first is the head.")] = 1,
    hours: Annotated[str, typer.Option(metavar="TIME", help="2, 0.5, 90m or 1d.")] = "1",
    cpu: Annotated[str, typer.Option(metavar="CORES", help="Of each machine, for your processes.")] = "1",
    mem: Annotated[str, typer.Option(metavar="SIZE", help="Of each machine: 4G, 512MB.")] = "2G",
    disk: Annotated[str, typer.Option(metavar="SIZE", help="Of each machine, encrypted: 20G.")] = "2G",
    gpu: Annotated[
        str | None, typer.Option(metavar="KIND", help="Of each machine: h100, or h100:8.", show_default=False)
    ] = None,
    max_price: Annotated[
        str | None, typer.Option(metavar="CLAI", help="The most for an hour of all.", show_default=False)
    ] = None,
    region: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Any of these.", show_default=False)
    ] = None,
    near: Annotated[
        str | None,
        typer.Option(metavar="20ms", help="Each at most so far from the gateway.", show_default=False),
    ] = None,
    max_rtt: Annotated[
        str | None,
        typer.Option("--max-rtt", metavar="5ms", help="Between any two of them.", show_default=False),
    ] = None,
    attested: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL@0x…,…",
            help="Of each operator, such as soc2-type2, by this attestor; without @ by anybody.",
            show_default=False,
        ),
    ] = None,
    measured: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD,…",
            help="Not just claimed: hardware, cpu, memory, gpu, region, bandwidth, reliability, coordinate, profile.",
            show_default=False,
        ),
    ] = None,
    same_operator: Annotated[
        str | None,
        typer.Option(
            metavar="no", help="no: as many operators as machines; 2: at most two of one.", show_default=False
        ),
    ] = None,
    one_price: Annotated[
        bool,
        typer.Option(
            "--one-price", help="Pay all alike, the lowest ask that lost; needs --max-price, the reserve."
        ),
    ] = False,
    # Not `env`: the settings' table `rent` has the commands' names as keys, and one is `env`.
    variables: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME=VALUE", help="A variable; no secrets.", show_default=False),
    ] = None,
    netns: NetNs = None,
    mesh: Annotated[
        bool,
        typer.Option(
            "--mesh/--no-mesh", help="Bring up this machine's end of the cluster's private network."
        ),
    ] = True,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Rent machines: show the plan and what each wish costs, ask, book, wait until Ray runs, and say how to reach it.

    `clusterai rent --nodes 4 --hours 2 --dry-run` shows what it would be, and books nothing.
    """
    if ctx.invoked_subcommand is not None:
        return Exit.OK
    from clusterai.cli import rentplan, rentwish
    from clusterai.cli.renting import keeping
    from clusterai.cli.renting.setup import setup_of
    from clusterai.sdk.offers import NotPlaced, Offers

    flags = rentwish.Flags(
        nodes=nodes,
        hours=hours,
        cpu=cpu,
        memory=mem,
        disk=disk,
        gpu=gpu,
        max_price=max_price,
        region=region,
        near=near,
        max_rtt=max_rtt,
        measured=measured,
        attested=attested,
        same_operator=same_operator,
        one_price=one_price,
    )
    request = rentwish.plan_request(flags, hold=not dry_run)
    setup = setup_of(request, variables or [])
    keeping.namespace_of(netns)
    if mesh and not dry_run:
        keeping.able()
    with gateway(data) as client:
        try:
            plan = Offers(client).plan(request)
        except NotPlaced as error:
            if json:
                say.emit({"placed": False, "why": error.why})
            raise rentplan.not_placed(error) from None
        if not json:
            rentplan.plan(plan)
        if dry_run:
            if json:
                say.emit({"placed": True, "plan": plan})
            return Exit.OK
        _ask(client, plan, yes)
        booked = _book(client, data, request, plan, setup, mesh)
        if mesh:
            keeping.start(_folder(data, booked), data, netns)
        return _come_up(client, data, booked, plan, mesh, json)


def _ask(client: "Client", plan: "RentalPlan", yes: bool) -> None:
    from clusterai.protocol.money import show as money
    from clusterai.sdk.offers import Offers

    try:
        options.confirm(f"Rent them, for at most {money(plan.price_wei)}?", yes)
    except typer.Abort:
        # Others may want them, within this minute.
        Offers(client).give_back(plan.hold)
        raise


def _book(
    client: "Client",
    data: Path | None,
    request: "PlanRequest",
    plan: "RentalPlan",
    setup: "Setup",
    mesh: bool,
) -> "Rental":
    """With this end's key, so that the machines know it from the beginning."""
    import secrets

    from clusterai.mesh import keypair
    from clusterai.protocol.ids import hex0x
    from clusterai.sdk.rentals import Rentals
    from clusterai.sdk.rentalshapes import RentRequest

    secret = secrets.token_bytes(32)
    key = hex0x(keypair(secret)[1]) if mesh else None
    booked = Rentals(client).rent(RentRequest(hold=plan.hold, plan=request, setup=setup, key=key))
    folder = _folder(data, booked)
    folder.write_plan(tuple(it.node for it in plan.machines))
    folder.write_token(booked.token)
    folder.write_secret(secret)
    return booked


def _come_up(
    client: "Client", data: Path | None, it: "Rental", plan: "RentalPlan", mesh: bool, json: bool
) -> int:
    from clusterai.cli.renting import entry, keeping, wait
    from clusterai.cli.renting.named import short
    from clusterai.protocol.units import counted
    from clusterai.sdk.rentals import Rentals

    name, folder, count = short(it), _folder(data, it), len(it.machines)
    say.say(f"rental {name} is booked: {counted(count, 'machine')} come{'s' * (count == 1)} up")
    try:
        try:
            running = wait.until_running(Rentals(client), it)
        except Failure as failure:
            keeping.stop(folder)
            if isinstance(failure, wait.EndedFirst):
                folder.remove()
            raise
        connected = mesh and keeping.until(folder, ("connected",), keeping.CONNECTS_S) is not None
    except KeyboardInterrupt:
        say.say(f"\nit goes on without you:  clusterai rent show {name}")
        say.say(f"give it back:  clusterai rent release {name}")
        return Exit.INTERRUPTED
    found = entry.entry_of(running, folder.token)
    if json:
        say.emit({"rental": running, "plan": plan, "ray": found, "connected": connected})
    else:
        entry.tell(found)
    if mesh and not connected:
        say.say(f"the head didn't answer over the mesh yet: clusterai rent show {name}; log: {folder.log}")
    elif not mesh:
        say.say(f"\nthese addresses are reached from a machine that joins: clusterai rent connect {name}")
    return Exit.OK if connected or not mesh else Exit.FAILED


def list_rentals(
    every: Annotated[bool, typer.Option("--all", help="Those of the last 7 days that ended, too.")] = False,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List what this account rents, newest first."""
    from clusterai.cli.renting import show as told
    from clusterai.sdk.rentals import Rentals

    with gateway(data) as client:
        found = [it for it in Rentals(client).list() if every or it.state != "ended"]
    if json:
        say.emit({"rentals": found})
    else:
        told.listed(found)


def show(
    rental_id: Id, data: options.Data = None, json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Show one: its machines, what was proven and paid, how long the money lasts, and why it ended."""
    from clusterai.cli.renting import show as told
    from clusterai.cli.renting.named import find
    from clusterai.sdk.rentals import Rentals

    with gateway(data) as client:
        it = find(Rentals(client), rental_id)
    if json:
        say.emit(it)
        return
    folder = _folder(data, it)
    told.rental(it, folder.state() if folder.is_held() else None)


def extend(
    rental_id: Id,
    hours: Annotated[str, typer.Option(metavar="TIME", help="2, 0.5, 90m or 1d.")] = "1",
    yes: options.Yes = False,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Book the same machines for longer, at the same price."""
    from clusterai.cli import rentwish
    from clusterai.cli.renting import show as told
    from clusterai.cli.renting.named import find, short
    from clusterai.protocol.money import show as money
    from clusterai.protocol.units import show_duration
    from clusterai.sdk.rentals import Rentals

    more_s = rentwish.seconds(hours)
    with gateway(data) as client:
        rentals = Rentals(client)
        it = find(rentals, rental_id)
        if it.state != "ended" and more_s > it.extendable_s:
            raise told.too_long(it, more_s)
        cost = money(it.price_hour_wei * more_s // 3600)
        options.confirm(f"Book {short(it)} for {show_duration(more_s)} more, for at most {cost}?", yes)
        it = rentals.extend(it.id, more_s)
    if json:
        say.emit(it)
    else:
        told.listed([it])


def release(
    rental_id: Id,
    yes: options.Yes = False,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Give the machines back now. What ran is paid, the rest of the booked time isn't; all that is on them is gone."""
    from clusterai.cli.renting import keeping
    from clusterai.cli.renting import show as told
    from clusterai.cli.renting.named import find, short
    from clusterai.sdk.rentals import Rentals

    with gateway(data) as client:
        rentals = Rentals(client)
        it = find(rentals, rental_id)
        if it.state != "ended":
            options.confirm(f"Give back {short(it)}, with all that is on its machines?", yes)
            it = rentals.release(it.id)
    folder = _folder(data, it)
    keeping.stop(folder)
    folder.remove()
    if json:
        say.emit(it)
    else:
        told.listed([it])


def logs(
    rental_id: Id,
    place: Place = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    data: options.Data = None,
    quiet: options.Quiet = False,
) -> int:
    """Print what a machine's own part wrote: Ray's start, and why it died. A job's logs are Ray's: `ray job logs`."""
    from clusterai.cli.jobs.follow import print_log
    from clusterai.cli.renting.logs import pieces
    from clusterai.cli.renting.named import find
    from clusterai.sdk.rentals import Rentals

    with gateway(data) as client:
        rentals = Rentals(client)
        it = find(rentals, rental_id)
        if place >= len(it.machines):
            raise Failure(
                f"there is no machine {place}", f"it has {len(it.machines)}, from 0", code=Exit.NOT_FOUND
            )
        try:
            for piece in pieces(rentals, it, place, follow):
                print_log(piece, sys.stdout)
        except KeyboardInterrupt:
            return Exit.INTERRUPTED
    return Exit.OK


def env(
    rental_id: Id, data: options.Data = None, json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Print the variables by which Ray's programs find the cluster: eval "$(clusterai rent env ID)"."""
    from clusterai.cli.renting import entry
    from clusterai.cli.renting.named import find
    from clusterai.sdk.rentals import Rentals

    with gateway(data) as client:
        it = find(Rentals(client), rental_id)
    found = entry.entry_of(it, _token(data, it))
    if json:
        say.emit(found)
    else:
        entry.tell(found)


def connect(
    rental_id: Id,
    netns: NetNs = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Be the keeper, instead of starting one in the background.")
    ] = False,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Make this machine the renter's end of the cluster's private network, until the rental ends or `disconnect`.

    Of a rental's machines only those are talked to that the plan named and whose keys they signed; nothing that they begin comes in.
    """
    from clusterai.cli.renting import entry, keeping
    from clusterai.cli.renting.named import find, short
    from clusterai.sdk.rentals import Rentals

    namespace = keeping.namespace_of(netns)
    keeping.able()
    with gateway(data) as client:
        it = find(Rentals(client), rental_id)
        token, folder = _token(data, it), _folder(data, it)
        if foreground:
            return _kept(client, data, folder, namespace)
    keeping.start(folder, data, netns)
    state = keeping.until(folder, ("connected",), keeping.STARTS_S)
    found = entry.entry_of(it, token)
    if json:
        say.emit({"ray": found, "keeper": folder.state()})
    elif state is not None:
        entry.tell(found)
    if state is None:
        raise Failure(
            "the head doesn't answer over the mesh",
            "its machines may still come up; this end stays and goes on trying",
            f"clusterai rent show {short(it)}, or read {folder.log}",
        )
    return Exit.OK


def _kept(client: "Client", data: Path | None, folder: "RentalFolder", namespace: str) -> int:
    import asyncio

    from clusterai.cli.renting import keeper, keeping
    from clusterai.protocol.ids import Address, address
    from clusterai.sdk.rentals import Rentals

    plan = folder.plan()
    planned = frozenset(address(it) for it in plan.nodes) if plan is not None else frozenset[Address]()
    kept = keeper.Keeper(Rentals(client), folder, keeping.domain_of(client), planned, namespace)

    async def run() -> str:
        await keeper.sweep(options.folder(data).root)
        return await keeper.keep(kept)

    try:
        phase = asyncio.run(run())
    except keeper.Held:
        raise Failure(
            "a keeper runs for this rental", "", "clusterai rent disconnect ID", Exit.BUSY
        ) from None
    state = folder.state()
    if phase in ("failed", "forged") and state is not None:
        raise keeping.refused(folder, state)
    return Exit.OK


def disconnect(
    rental_id: Id, data: options.Data = None, json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Take this machine out of the cluster's private network. The rental goes on."""
    from clusterai.cli.renting import keeping
    from clusterai.cli.renting.named import find, short
    from clusterai.sdk.rentals import Rentals

    with gateway(data) as client:
        it = find(Rentals(client), rental_id)
    ran = keeping.stop(_folder(data, it))
    if json:
        say.emit({"id": it.id, "was_connected": ran})
    else:
        say.tell(f"{short(it)}: {'disconnected' if ran else 'this machine was not connected'}")


def shell(rental_id: Id, place: Place = 0, data: options.Data = None, quiet: options.Quiet = False) -> int:
    """Open a shell on one of the machines, beside Ray, as your processes there see it."""
    from clusterai.cli.renting import keeping

    keeping.on_linux()
    from clusterai.cli.renting.shell import open_shell

    it, keeper = _machine(rental_id, place, data)
    return open_shell(it, place, keeper)


def notebook(
    rental_id: Id,
    place: Place = 0,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Run JupyterLab on one of the machines, beside Ray, until you interrupt it. In it, `ray.init()` is the cluster's.

    What it keeps lies on that machine, and ends with the rental: download it before.
    """
    from clusterai.cli.renting import keeping

    keeping.on_linux()
    from clusterai.cli.renting.shell import open_notebook

    it, keeper = _machine(rental_id, place, data)

    def ready(url: str) -> None:
        if json:
            say.emit({"id": it.id, "place": place, "url": url})
        else:
            say.tell(url)
            say.say("open it in a browser on this machine; Ctrl-C ends it, and files end with the rental")

    return open_notebook(it, place, keeper, ready)


def _machine(rental_id: str, place: int, data: Path | None) -> "tuple[Rental, KeeperState | None]":
    """A rental that has this machine, and how this end of its network stands.

    Raises:
        Failure: no such machine, or it ended.
    """
    from clusterai.cli.renting.named import find
    from clusterai.sdk.rentals import Rentals

    with gateway(data) as client:
        it = find(Rentals(client), rental_id)
    _token(data, it)
    if place >= len(it.machines):
        raise Failure(
            f"there is no machine {place}", f"it has {len(it.machines)}, from 0", code=Exit.NOT_FOUND
        )
    folder = _folder(data, it)
    return it, folder.state() if folder.is_held() else None


def _token(data: Path | None, it: "Rental") -> Path:
    """Its file, written anew: it may have been booked elsewhere.

    Raises:
        Failure: it ended.
    """
    from clusterai.cli.renting.named import short
    from clusterai.cli.renting.show import WHY

    if it.state == "ended":
        raise Failure(
            f"rental {short(it)} ended", WHY.get(it.why, it.why), "clusterai rent --nodes N --hours H"
        )
    folder = _folder(data, it)
    folder.write_token(it.token)
    return folder.token


def _folder(data: Path | None, it: "Rental") -> "RentalFolder":
    from clusterai.cli.renting.folder import RentalFolder
    from clusterai.protocol.ids import digest

    return RentalFolder(options.folder(data).root, digest(it.id))
