"""`clusterai train`: a Flower app, unmodified, over data that stays in its vaults."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.identity import IdentityFile, asked_at, identity_at
from clusterai.cli.reach import vaults_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterai.cli.asking import Standing
    from clusterai.protocol.ids import Digest
    from clusterai.work.training.adapters.campaign import Outcome, Wish

AppFolder = Annotated[Path, typer.Argument(metavar="APP", help="Folder of a Flower app.", show_default=False)]
Vaults = Annotated[
    str, typer.Option(metavar="A,B,C", help="Names of vaults, OWNER/NAME, or ids.", show_default=False)
]
Epsilon = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=1_000,
        help="What the run may reveal of any person, at each vault. Without: bare sums, where owners grant that.",
        show_default=False,
    ),
]
Combining = Literal["median", "trimmed", "krum", "mean"]
RunConfig = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE", help="Overrides the app's configuration; may be repeated.", show_default=False
    ),
]
Rounds = Annotated[
    int | None,
    typer.Option(min=1, max=1_000, help="Default: as the app's configuration says.", show_default=False),
]


def join(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Train on data that stays where it lies.",
        no_args_is_help=True,
    )
    group.command()(federated)
    group.command()(request)
    group.command()(check)
    app.add_typer(group, name="train")


def request(
    app: AppFolder,
    vaults: Vaults,
    purpose: Annotated[
        str, typer.Option(help="What for, in words: owners decide by them.", show_default=False)
    ],
    epsilon: Epsilon = None,
    uses: Annotated[int, typer.Option(min=1, max=100_000, help="Orders, at most: two a round.")] = 100,
    price: Annotated[str, typer.Option(metavar="AMOUNT", help="Most you pay for one use.")] = "1",
    days: Annotated[int, typer.Option(min=1, max=3_650, help="For how long.")] = 30,
    network: options.Network = None,
    identity: IdentityFile = None,
    data: options.Data = None,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask the owners of vaults to let this app be trained there: they get all its files to read, and grant it alone."""
    import asyncio

    from clusterai.cli import asking, training
    from clusterai.cli.names import names_at
    from clusterai.protocol.money import BadAmount, parse
    from clusterai.protocol.vaults import Operation

    found = training.app_at(app)
    who, known = identity_at(identity), names_at(identity, data, network)
    try:
        price_wei = parse(price)
    except BadAmount as error:
        raise Failure(f"--price {price}", str(error), code=Exit.USAGE) from None
    wish = asking.Wish(
        int(Operation.TRAINING),
        purpose,
        round((epsilon or 0) * 1_000_000),
        uses,
        price_wei,
        days,
        found.bundle.canonical(),
    )

    async def run() -> "list[Standing]":
        async with vaults_at(data, network) as reach:
            listed = [await asking.found(reach, name, known) for name in _names(vaults)]
            for it, facts in listed:
                if (refusal := asking.refused_anyway(facts, wish)) is not None:
                    raise Failure(f"{it.name}: {refusal.what}", refusal.why, refusal.next)
            options.confirm(f"Send {len(found.bundle.files)} files to {len(listed)} owners?", yes)
            came: list[Standing] = []
            for it, _ in listed:
                came.append(await asking.request(reach, it, who, wish))
                asking.remember(asked_at(identity), it.dataset, it.name)
            return came

    came = asyncio.run(run())
    if json:
        say.emit(came)
        return
    for it in came:
        say.tell(f"{it.name}: {it.state}  {it.request}")
    say.say("→ clusterai data grants")


def federated(
    app: AppFolder,
    vaults: Vaults,
    epsilon: Epsilon = None,
    delta: Annotated[float, typer.Option(min=1e-9, max=1e-3, help="Of (ε, δ).")] = 1e-6,
    secure_aggregation: Annotated[
        bool,
        typer.Option(
            "--secure-aggregation/--no-secure-aggregation",
            help="Nobody sees one vault's update, only the sum; needs three vaults or more.",
        ),
    ] = True,
    blocks: Annotated[
        int,
        typer.Option(
            min=1,
            max=1_024,
            help="With ε: into how many parts each vault deals its people; the app runs on each.",
        ),
    ] = 16,
    shared_noise: Annotated[
        bool,
        typer.Option(
            "--shared-noise",
            help="With ε: less noise, in shares, for vaults that trust each other, whose policies name their requesters.",
        ),
    ] = False,
    groups: Annotated[
        int,
        typer.Option(
            min=1,
            max=42,
            help="Into how many groups each round's vaults are drawn, at least three to a group. With three groups and more, no vault decides alone, and who "
            "doesn't train is found and left out; each group's sum is seen.",
        ),
    ] = 1,
    rule: Annotated[
        Combining,
        typer.Option(help="With --groups: how the groups' means are combined. Each group has one vote."),
    ] = "median",
    worth: Annotated[
        bool,
        typer.Option(
            "--worth",
            help="With --groups, and an app that evaluates on rows of its own (evaluate_fn): say in the card what each group's sum was worth there, so that a "
            "pot can be shared by what each vault added.",
        ),
    ] = False,
    norm: Annotated[float, typer.Option(min=1e-4, max=1e6, help="No update is longer than this.")] = 10.0,
    rounds: Rounds = None,
    run_config: RunConfig = None,
    max_price: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="The most that all of it may cost.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Model, lineage card and checkpoint; a run that broke off goes on there. Default: APP-run.",
            show_default=False,
        ),
    ] = None,
    network: options.Network = None,
    identity: IdentityFile = None,
    data: options.Data = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a Flower app over vaults: its ServerApp here, its ClientApp beside the data, in the sandbox; what comes back are sums."""
    import asyncio

    from clusterai.cli import training
    from clusterai.cli.names import names_at
    from clusterai.protocol.money import BadAmount, parse
    from clusterai.protocol.money import show as money
    from clusterai.work.training.adapters.campaign import Campaign, CannotTrain, Wish
    from clusterai.work.training.adapters.checkpoint import InUse, sources_in
    from clusterai.work.training.adapters.saving import SAFETENSORS
    from clusterai.work.training.adapters.serverapp import AppFailed
    from clusterai.work.training.adapters.studio import NoFlower
    from clusterai.work.training.core import quote

    found = training.app_at(app)
    planned, config = training.config_of(found, rounds, run_config or [])
    names = _names(vaults)
    if secure_aggregation and len(names) < 3:
        raise Failure(
            f"{len(names)} vault(s) with secure aggregation",
            "a sum over fewer than three tells each its other",
            "name three, or --no-secure-aggregation with --epsilon",
            Exit.USAGE,
        )
    if groups > 1 and (not secure_aggregation or shared_noise or len(names) < 3 * groups):
        raise Failure(
            f"--groups {groups} over {len(names)} vaults",
            "groups are of three vaults at least, with secure aggregation, and not for noise in shares",
            f"--groups {max(1, len(names) // 3)}, or more vaults",
            Exit.USAGE,
        )
    if worth and groups < 2:
        raise Failure(
            "--worth",
            "one sum of all says nothing of what single vaults add",
            "with --groups 2 or more",
            Exit.USAGE,
        )
    try:
        most_wei = None if max_price is None else parse(max_price)
    except BadAmount as error:
        raise Failure(f"--max-price {max_price}", str(error), code=Exit.USAGE) from None
    wish = Wish(
        rounds=planned,
        epsilon=epsilon,
        delta=delta,
        norm=norm,
        blocks=blocks,
        masked=secure_aggregation,
        shared_noise=shared_noise,
        groups=groups,
        rule=rule,
        worth=worth,
        config=config,
        max_price_wei=most_wei,
    )
    folder = out or app.resolve().with_name(f"{app.resolve().name}-run")
    who, known = identity_at(identity), names_at(identity, data, network)
    uses = quote.uses(planned, private=epsilon is not None)
    try:
        sources = sources_in(folder)
    except ValueError as error:
        raise Failure(f"{folder} holds no run that can go on", str(error), "name another by --out") from None
    if sources:
        training.taken_up(sources, names, folder)

    def choose(standings: "list[Standing]", name: str) -> "Digest":
        return training.chosen(standings, found.bundle.digest, epsilon, uses, name)

    async def run() -> "Outcome | None":
        async with vaults_at(data, network) as reach:
            parties = await training.gathered(reach, names, known, who, sources, choose)
            quoted_wei = training.quoted(parties, planned, epsilon, delta)
            _show(wish, names, quoted_wei)
            if dry_run:
                if json:
                    say.emit(
                        {"vaults": [it.name for it in parties], "rounds": planned, "most_wei": quoted_wei}
                    )
                return None
            if most_wei is not None and quoted_wei > most_wei:
                raise Failure(
                    f"this may cost {money(quoted_wei)}, above --max-price {money(most_wei)}",
                    f"that is {planned} rounds at {len(parties)} vaults, if none fails; what isn't spent isn't charged",
                    f"--max-price {money(quoted_wei).split()[0]}, or fewer rounds or less ε",
                )
            options.confirm("Train?", yes)
            return await Campaign(
                found.folder, parties, who.key, wish, folder, _quiet if json else _teller()
            ).train()

    try:
        came = asyncio.run(run())
    except (CannotTrain, InUse, AppFailed, NoFlower) as error:
        raise Failure("the run ended", str(error), f"the same command goes on from {folder}") from None
    if came is None:
        return
    tensors = folder / SAFETENSORS
    if json:
        say.emit(
            {
                "model": None if came.model is None else str(came.model),
                "safetensors": str(tensors) if tensors.exists() else None,
                "lineage": str(folder / "lineage.json"),
                "rounds": came.rounds,
                "epsilon": came.epsilon,
                "charged_wei": came.charged_wei,
                "history": came.history,
                "named": [{"vault": it.name, "why": it.why} for it in came.named],
            }
        )
        return
    say.tell(f"{came.model}  {came.rounds} sums, ε {came.epsilon:.3f}, {money(came.charged_wei)}")
    say.say(f"out of what it was made: {folder / 'lineage.json'}")


def check(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Folder of a run, with lineage.json and sums.", show_default=False
        ),
    ],
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check a run's sums by the transcripts that its requester signed: whose updates are in each, each once.

    Exit code 6: one is false; it says what is false, and who signed it. 5: card or transcripts aren't there. 1: there is nothing that could be checked.
    """
    from clusterai.cli import trainchecks

    found = trainchecks.checked(run)
    false = found.false
    if json:
        say.emit(found)
    else:
        say.table(
            ("#round", "#group", "vaults", "found"),
            [(it.round, it.group, ",".join(it.vaults), it.fault or "true") for it in found.sums],
        )
        for it in found.named:
            say.say(f"after round {it.after} the run went on without {it.name}, as its card says: {it.why}")
    if false:
        first = false[0]
        by = f"; {first.signer} signed it" if first.signer else "; nobody's signature is under it"
        raise Failure(
            f"{len(false)} of {len(found.sums)} sums aren't what the card says",
            f"round {first.round}, group {first.group}: {first.fault}{by}",
            "keep the folder: it is the proof" if first.signer else trainchecks.WHOLE,
            Exit.UNTRUE,
        )
    if not json:
        say.say(f"{len(found.sums)} sums are what the card says")


def _names(vaults: str) -> list[str]:
    names = [name.strip() for name in vaults.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise Failure("--vaults", "names of vaults with commas between them, each once", code=Exit.USAGE)
    return names


def _show(wish: "Wish", names: list[str], quoted_wei: int) -> None:
    from clusterai.protocol.money import show as money

    price = f"at most {money(quoted_wei)}, if no round fails"
    if wish.epsilon is None:
        say.say(f"{len(names)} vaults, {wish.rounds} rounds, no noise: sums as they are; {price}")
        return
    say.say(
        f"{len(names)} vaults, {wish.rounds} rounds within ε {wish.epsilon:g} (δ {wish.delta:g}), "
        f"{wish.blocks} blocks at each; metrics stay there; {price}"
    )


def _quiet(_: dict[str, Any]) -> None:
    pass


def _teller() -> "Callable[[dict[str, Any]], None]":
    """Tells what happens; what would be said of each round in the same words is said once."""
    said: set[str] = set()

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "withheld":
            if event["why"] in said:
                return
            said.add(event["why"])
        _told(event)

    return tell


def _told(event: dict[str, Any]) -> None:
    from clusterai.protocol.money import show as money

    match event:
        case {"event": "summed", "number": number, "type": kind, "vaults": count, "metrics": metrics}:
            told = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            spent = f"ε {event['epsilon']:.3f}  " if event["epsilon"] else ""
            say.say(f"{number:>3} {kind:<9} {count} vaults  {told}  {spent}{money(event['charged_wei'])}")
        case {"event": "evaluated", "round": number, "metrics": metrics}:
            told = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            say.say(f"    round {number}, here: {told}")
        case {"event": "dropped", "vault": name, "why": why}:
            say.say(f"    {name} dropped out: {why}")
        case {"event": "again", "vault": name, "why": why}:
            say.say(f"    {name} is asked again: {why}")
        case {"event": "named", "vault": name, "why": why}:
            say.say(f"    {name} {why}: the run goes on without it")
        case (
            {"event": "failed", "why": why}
            | {"event": "notice", "why": why}
            | {"event": "withheld", "why": why}
        ):
            say.say(f"    {why}")
        case _:
            pass
