"""`clusterai query "select …" --vault A --vault B --epsilon 0.5`: statistics on private data, with noise, joined over vaults.

With `--joint` the vaults answer as one: what comes is the statistic of all their rows, and no vault's own part of it is seen.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.identity import IdentityFile, identity_at
from clusterai.cli.reach import vaults_at

if TYPE_CHECKING:
    from clusterai.cli.names import Names
    from clusterai.cli.querying.asking import Came, Planned, Question
    from clusterai.sdk.identity import Identity
    from clusterai.work.joint.adapters.asking import Statistic
    from clusterai.work.joint.spec import Way
    from clusterai.work.query.core.estimate import Cell


def join(app: typer.Typer) -> None:
    app.command()(query)


def query(
    vault: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="Name of a vault, OWNER/NAME, or its id; may be repeated.",
            show_default=False,
        ),
    ],
    epsilon: Annotated[
        float,
        typer.Option(
            min=0,
            max=20,
            help="What it may reveal, of each vault's budget. 0: exact joint sums, where owners grant that.",
            show_default=False,
        ),
    ],
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SQL",
            help="select count(*), sum, avg, variance, stddev, median, quantile(x, q), histogram(x, bins) … where … group by …",
            show_default=False,
        ),
    ] = "",
    delta: Annotated[
        float, typer.Option(min=0, max=0.0001, help="Allows less noise where many numbers are asked at once.")
    ] = 0,
    program: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Instead of SQL: a granted program, run on blocks of people. It reads /job/in/rows.csv and leaves a list of numbers in "
            "/job/out/result.json; they are averaged.",
            show_default=False,
        ),
    ] = None,
    bound: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LOW:HIGH",
            help="Of each number that the program gives; may be repeated.",
            show_default=False,
        ),
    ] = None,
    arg: Annotated[
        list[str] | None, typer.Option(help="Of the program; may be repeated.", show_default=False)
    ] = None,
    blocks: Annotated[int, typer.Option(min=8, max=200, help="Into how many blocks people are split.")] = 16,
    block_seconds: Annotated[int, typer.Option(min=1, max=60, help="What a block may take.")] = 5,
    rows: Annotated[
        int, typer.Option(min=1, help="People in a group, for the error that is expected.")
    ] = 1_000,
    joint: Annotated[
        bool,
        typer.Option(
            "--joint",
            help="Three vaults or more as one: count, sum, avg, variance, stddev, or one histogram(x, cells), or one regression(y, x1, …). "
            "Nobody sees a vault's own part.",
        ),
    ] = False,
    by: Annotated[
        str,
        typer.Option(
            metavar="WAY",
            help="How joint sums are taken: masks (secure aggregation), or ckks (under a key that nobody holds; needs OpenFHE here and there).",
        ),
    ] = "masks",
    max_price: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="The most that all of it may cost.", show_default=False),
    ] = None,
    network: options.Network = None,
    identity: IdentityFile = None,
    data: options.Data = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask vaults a question; the answer comes with noise that hides every single person."""
    import asyncio

    from clusterai.cli.names import names_at
    from clusterai.cli.querying import asking, vaults
    from clusterai.protocol.money import show as money

    who, known = identity_at(identity), names_at(identity, data, network)
    if joint:
        if program is not None or bound or arg or not sql:
            raise Failure("--joint takes SQL", "programs run at each vault by itself", code=Exit.USAGE)
        if by not in ("masks", "ckks"):
            raise Failure(f"--by {by}", "it is masks or ckks", code=Exit.USAGE)
        _jointly(sql, by, vault, epsilon, delta, max_price, who, known, network, data, dry_run, yes, json)
        return
    if epsilon < 0.001:
        raise Failure(f"--epsilon {epsilon:g}", "0.001 is the least; 0 is for --joint alone", code=Exit.USAGE)
    question = _question(
        sql, epsilon, delta, program, bound or [], tuple(arg or ()), blocks, block_seconds, rows
    )
    if len(set(vault)) != len(vault) or len(vault) > asking.MOST_VAULTS:
        raise Failure(f"name each vault once, at most {asking.MOST_VAULTS}", code=Exit.USAGE)
    most_wei = _amount(max_price)

    async def run() -> "tuple[list[Came], list[Failure]] | None":
        async with vaults_at(data, network) as reach:
            found = [await vaults.found(reach, name, known) for name in vault]
            plans = [await asking.planned(reach, it, question, who) for it in found]
            if not json:
                _show_plan(plans, question)
            if dry_run:
                if json:
                    say.emit(asking.plan_told(plans, question))
                return None
            total_wei = sum(it.price_wei or 0 for it in plans)
            if not json and say.person():
                options.confirm(
                    f"spend ε {epsilon:g} at each of {len(plans)} vaults, for {money(total_wei)}?", yes
                )
            return await asking.ask(reach, plans, question, who, most_wei)

    told = asyncio.run(run())
    if told is None:
        return
    came, failed = told
    for failure in failed:
        say.complain("\n".join(failure.lines()))
    names, table = asking.joined(came)
    if json:
        say.emit(asking.answers_told(came, names, table))
        _fail_where(failed)
        return
    say.table(
        [name if _is_key(table, at) else f"#{name}" for at, name in enumerate(names)],
        [[_shown(cell) for cell in row] for row in table],
    )
    charged = money(sum(it.charged_wei for it in came))
    say.say(f"± covers the noise in 95 of 100 cases, not what a sample leaves open; charged {charged}")
    for it in came:
        use = it.answer.use.use
        say.say(
            f"{it.vault.name}: use {use.index} of its log, ε spent under this grant {use.grant_spent_micro / 1e6:g}"
        )
    _fail_where(failed)


def _jointly(
    sql: str,
    by: "Way",
    names: list[str],
    epsilon: float,
    delta: float,
    max_price: str | None,
    who: "Identity",
    known: "Names",
    network: Path | None,
    data: Path | None,
    dry_run: bool,
    yes: bool,
    json: bool,
) -> None:
    import asyncio

    from clusterai.cli.querying import jointly, vaults
    from clusterai.protocol.money import show as money

    # Down, so that never more is spent than was said.
    micro = int(epsilon * 10**6 + 1e-6)
    pico = int(delta * 10**12 + 1e-6) or jointly.USUAL_DELTA_PICO
    if len(set(names)) != len(names):
        raise Failure("name each vault once", code=Exit.USAGE)
    most_wei = _amount(max_price)

    async def run() -> "Statistic | None":
        async with vaults_at(data, network) as reach:
            found = [await vaults.found(reach, name, known) for name in names]
            plans = [await jointly.planned(reach, it, micro, who) for it in found]
            wanted = jointly.wanted_of(sql, plans)
            if not json:
                for line in jointly.told(plans, micro):
                    say.say(line)
            if dry_run:
                if json:
                    say.emit(jointly.plan_told(plans, wanted, micro, by))
                return None
            total_wei = sum(it.price_wei or 0 for it in plans)
            if not json and say.person():
                options.confirm(
                    f"spend ε {epsilon:g} at each of {len(plans)} vaults, for {money(total_wei)}?", yes
                )
            return await jointly.ask(
                reach, plans, wanted, who, epsilon_micro=micro, delta_pico=pico, by=by, most_wei=most_wei
            )

    came = asyncio.run(run())
    if came is None:
        return
    if json:
        say.emit(jointly.answer_told(came))
        return
    say.table(
        ["", "#value", "#±"],
        [
            [name, f"{value:.6g}", "unknown" if (half := came.half[name]) == float("inf") else f"{half:.2g}"]
            for name, value in came.values.items()
        ],
    )
    say.say(
        f"of {', '.join(came.vaults)} together; ± covers the noise in 95 of 100 cases; charged {money(came.charged_wei)}"
    )
    for name, why in came.dropped.items():
        say.complain(f"{name} isn't in it: {why}")


def _amount(text: str | None) -> int | None:
    """
    Raises:
        Failure: that is no amount.
    """
    from clusterai.protocol.money import BadAmount, parse

    try:
        return None if text is None else parse(text)
    except BadAmount as error:
        raise Failure(f"--max-price {text}", str(error), code=Exit.USAGE) from None


def _fail_where(failed: list[Failure]) -> None:
    """What came was shown; a script must see that it isn't all."""
    if failed:
        raise Failure(f"{len(failed)} of the vaults didn't answer", "the answer above is of the others")


def _question(
    sql: str,
    epsilon: float,
    delta: float,
    program: Path | None,
    bound: list[str],
    args: tuple[str, ...],
    blocks: int,
    block_s: int,
    rows: int,
) -> "Question":
    """
    Raises:
        Failure: the options contradict each other.
    """
    from clusterai.cli.querying.asking import Question
    from clusterai.work.query.spec import MOST_SLOTS_S, SPARE_S, Bound

    # Down, so that never more is spent than was said.
    micro, pico = int(epsilon * 10**6 + 1e-6), int(delta * 10**12 + 1e-6)
    if bool(sql) == (program is not None):
        raise Failure("write SQL, or name a --program", code=Exit.USAGE)
    if program is None:
        if bound or args:
            raise Failure("--bound and --arg belong to --program", code=Exit.USAGE)
        return Question(micro, pico, sql=sql, rows=rows)
    if blocks * (block_s + SPARE_S) > MOST_SLOTS_S:
        raise Failure(
            f"{blocks} blocks of {block_s} s take too long",
            next=f"at most {MOST_SLOTS_S} s in all, {SPARE_S} s of each block are spare",
            code=Exit.USAGE,
        )
    try:
        ends = [tuple(round(float(side) * 10**6) for side in it.split(":")) for it in bound]
        bounds = tuple(Bound(low, high) for low, high in ends)
        content = program.read_bytes()
    except (ValueError, OverflowError) as error:
        raise Failure("--bound takes LOW:HIGH, such as 0:100", str(error), code=Exit.USAGE) from None
    except OSError as error:
        raise Failure(f"{program} can't be read", error.strerror or "", code=Exit.USAGE) from None
    if not bounds:
        raise Failure("say by --bound LOW:HIGH what the program's numbers are", code=Exit.USAGE)
    return Question(
        micro, program=content, args=args, bounds=bounds, blocks=blocks, block_s=block_s, rows=rows
    )


def _show_plan(plans: "list[Planned]", question: "Question") -> None:
    from clusterai.protocol.money import show as money

    for plan in plans:
        price = "nobody answers queries there now" if plan.price_wei is None else money(plan.price_wei)
        grant = "no grant: clusterai data request"
        if plan.grant is not None:
            left = (plan.grant.epsilon_micro - plan.grant.spent_micro) / 1e6
            grant = f"{left:g} of ε {plan.grant.epsilon_micro / 1e6:g} left in the grant"
        say.say(f"{plan.vault.name}: {price}; {grant}; {plan.mechanism} noise, {plan.groups} group(s)")
    parts = [
        f"{name} ±{error:.4g}"
        for name, error in zip(plans[0].outputs, plans[0].error, strict=True)
        if error is not None
    ]
    if parts:
        about = f" in groups of {question.rows}" if question.sql else ""
        say.say(f"expected{about}, of one vault: {', '.join(parts)}")


def _is_key(table: "list[tuple[Cell, ...]]", at: int) -> bool:
    return bool(table) and isinstance(table[0][at], str)


def _shown(cell: "Cell") -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, tuple):
        return " ".join(_shown(it) for it in cell)
    if cell.value is None:
        return "-"
    if cell.low is None or cell.high is None:
        return f"{cell.value:.6g}"
    return f"{cell.value:.6g} ±{(cell.high - cell.low) / 2:.2g}"
