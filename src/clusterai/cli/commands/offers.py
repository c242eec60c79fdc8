"""`clusterai offers`: machines that can be rented whole now, with measured numbers and their age."""

from typing import Annotated

import typer

from clusterai.cli import options, say


def join(app: typer.Typer) -> None:
    app.command()(offers)


def offers(
    gpu: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="h100, or h100:8 for eight of them.", show_default=False),
    ] = None,
    near: Annotated[
        str | None,
        typer.Option(
            metavar="20ms",
            help="At most so far from the gateway, as its link's pings say.",
            show_default=False,
        ),
    ] = None,
    cpu: Annotated[
        str | None, typer.Option(metavar="CORES", help="2, 0.5 or 500m.", show_default=False)
    ] = None,
    mem: Annotated[str | None, typer.Option(metavar="SIZE", help="4G, 512MB.", show_default=False)] = None,
    disk: Annotated[str | None, typer.Option(metavar="SIZE", help="20G.", show_default=False)] = None,
    region: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Any of these.", show_default=False)
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
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, the cheapest first.")] = 20,
    page: Annotated[
        str, typer.Option(metavar="NEXT", help="Go on behind the list that said this.", show_default=False)
    ] = "",
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List machines that can be rented now: price, what they are, and whose word each number is."""
    from clusterai.cli import rentplan, rentwish
    from clusterai.cli.reach import gateway
    from clusterai.protocol.units import counted
    from clusterai.sdk.offers import Offers

    flags = rentwish.Flags(
        cpu=cpu,
        memory=mem,
        disk=disk,
        gpu=gpu,
        region=region,
        near=near,
        measured=measured,
        attested=attested,
    )
    need, regions, near_us = rentwish.wanted(flags), rentwish.regions(flags), rentwish.near_us(flags)
    with gateway(data) as client:
        found = Offers(client).list(
            need, regions, None if near_us is None else near_us / 1_000, limit, page, rentwish.attested(flags)
        )
    if json:
        say.emit(found)
        return
    if found.offers:
        rentplan.machines(found.offers)
        more = found.suitable - len(found.offers)
        if found.next:
            say.tell(f"{more} more: clusterai offers --page {found.next}")
        return
    if not found.standing:
        say.tell("no machine is offered now; offer this one: clusterai node join --rent PRICE")
        return
    taken = f"{found.taken} {'is' if found.taken == 1 else 'are'} held or rented"
    say.tell(f"none of {counted(found.standing, 'machine')} fits ({taken})")
    for way in rentplan.ways_out(found.why_not) if found.why_not is not None else []:
        say.tell(f"  → {way}")
