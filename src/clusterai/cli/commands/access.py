"""`clusterai data request`, `grants`, `review`, `result`: asking a vault's owner for access, what came of it, and programs that it reviews."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.identity import IdentityFile, asked_at, identity_at
from clusterai.cli.reach import vaults_at

if TYPE_CHECKING:
    from clusterai.cli.asking import Standing, Wish
    from clusterai.sdk.vaults import Listed

WANTS = "query, code, review, training, copy or joint"


def request(
    dataset: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of a vault, OWNER/NAME, or its id.", show_default=False),
    ],
    purpose: Annotated[
        str, typer.Option(help="What for, in words: the owner decides by them.", show_default=False)
    ],
    operation: Annotated[str, typer.Option(help=f"{WANTS[0].upper()}{WANTS[1:]}.")] = "query",
    epsilon: Annotated[
        float, typer.Option(min=0, max=1_000, help="Privacy budget in all; for noisy answers.")
    ] = 0.5,
    uses: Annotated[int, typer.Option(min=1, max=1_000_000, help="How often, at most.")] = 100,
    price: Annotated[str, typer.Option(metavar="AMOUNT", help="Most you pay for one use.")] = "1",
    days: Annotated[int, typer.Option(min=1, max=3_650, help="For how long.")] = 30,
    program: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="For code, review and training: what shall run. The owner reads it, and the grant is for it alone. Of code and review: it reads "
            "/job/in/rows.csv and leaves /job/out/result.json; `clusterai data mock NAME` writes such rows to try it on.",
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
    """Ask the owner of private data for access. It travels sealed: no gateway reads who asks for what."""
    import asyncio

    from clusterai.cli import asking
    from clusterai.cli.names import names_at

    wish = _wish(operation, purpose, epsilon, uses, price, days, program)
    who, names = identity_at(identity), names_at(identity, data, network)

    async def run() -> "Standing | None":
        async with vaults_at(data, network) as reach:
            listed, facts = await asking.found(reach, dataset, names)
            refusal = asking.refused_anyway(facts, wish)
            if refusal is not None:
                raise refusal
            if not json:
                _show(listed, wish, facts.policy)
            if dry_run:
                return None
            options.confirm("Ask?", yes)
            came = await asking.request(reach, listed, who, wish)
            asking.remember(asked_at(identity), listed.dataset, listed.name)
            return came

    came = asyncio.run(run())
    if came is None:
        return
    if json:
        say.emit(came)
        return
    said = {
        "asked": "asked; its owner decides",
        "approved": "granted by its policy; on its way to the chain",
        "granted": "granted",
    }
    say.tell(f"{said.get(came.state, came.state)}  {came.request}")
    if came.state == "asked" and came.note:
        say.tell(f"  {''.join(it if it.isprintable() else ' ' for it in came.note)}")
    say.say("→ clusterai data grants")


def _wish(
    operation: str, purpose: str, epsilon: float, uses: int, price: str, days: int, program: Path | None
) -> "Wish":
    from clusterai.cli.asking import Wish
    from clusterai.protocol.access import MOST_CODE_BYTES, MOST_PURPOSE_BYTES
    from clusterai.protocol.money import BadAmount, parse
    from clusterai.protocol.vaults import Operation
    from clusterai.vault.core.policy import BadPolicy, epsilon_micro

    known = {it.name.lower(): it for it in Operation}
    if operation not in known:
        raise Failure(f"--operation {operation}", f"it is {WANTS}", code=Exit.USAGE)
    needs = known[operation] in (Operation.CODE, Operation.REVIEW, Operation.TRAINING)
    if needs != (program is not None):
        raise Failure(
            f"{operation} {'needs' if needs else 'takes no'} --program",
            "the owner reads what shall run" if needs else "",
            code=Exit.USAGE,
        )
    if not purpose.strip() or len(purpose.encode()) > MOST_PURPOSE_BYTES:
        raise Failure(f"--purpose has 1 to {MOST_PURPOSE_BYTES} bytes", code=Exit.USAGE)
    try:
        code = b"" if program is None else program.expanduser().read_bytes()
        micro, price_wei = epsilon_micro(epsilon), parse(price)
    except OSError as error:
        raise Failure(f"{program} can't be read", error.strerror or "", code=Exit.NOT_FOUND) from None
    except (BadAmount, BadPolicy) as error:
        raise Failure("that can't be asked", str(error), code=Exit.USAGE) from None
    if needs and not 0 < len(code) <= MOST_CODE_BYTES:
        raise Failure(f"{program} has {len(code)} bytes", f"1 to {MOST_CODE_BYTES} can be asked with")
    return Wish(int(known[operation]), purpose, micro, uses, price_wei, days, code)


def _show(listed: "Listed", wish: "Wish", policy: "dict[str, object]") -> None:
    from clusterai.cli.asking import prices_of
    from clusterai.protocol.access import code_digest
    from clusterai.protocol.ids import Address, checksummed, hex0x
    from clusterai.protocol.money import show as money
    from clusterai.protocol.vaults import Operation

    operation = Operation(wish.operation)
    say.say(
        f"[bold]{listed.name}[/]: {operation.name.lower()}, ε {wish.epsilon_micro / 1e6:g} in {wish.uses} uses, {wish.days} days, "
        f"at most {money(wish.price_wei)} a use"
    )
    say.say(f"  of {checksummed(Address(listed.listing.owner))}")
    milli_wei, use_wei, copy_wei = prices_of(policy, operation)
    if operation is Operation.COPY:
        say.say(f"  its price: {money(copy_wei)}")
    else:
        say.say(f"  its prices: {money(use_wei)} a use, {money(milli_wei)} for each thousandth of ε")
    if wish.code:
        say.say(f"  program {hex0x(code_digest(wish.code))}, {len(wish.code)} bytes: its owner reads it")


def grants(
    dataset: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Vaults, as elsewhere. Default: all that this identity asked.",
            show_default=False,
        ),
    ] = None,
    network: options.Network = None,
    identity: IdentityFile = None,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List what you asked vaults for, what came of it, and what is left of each grant."""
    import asyncio

    from clusterai.cli import asking
    from clusterai.cli.names import names_at
    from clusterai.protocol.ids import hex0x

    who, known = identity_at(identity), names_at(identity, data, network)
    titles = {hex0x(it): name for it, name in asking.remembered(asked_at(identity)).items()}
    names = dataset or list(titles)

    async def run() -> "tuple[list[Standing], dict[str, str]]":
        found: list[Standing] = []
        missing: dict[str, str] = {}
        async with vaults_at(data, network) as reach:
            for name in names:
                try:
                    listed, _ = await asking.found(reach, name, known)
                    found += await asking.standings(reach, listed, who)
                except Failure as failure:
                    missing[name] = failure.what
                except ApiError as error:
                    missing[name] = error.detail
        return found, missing

    from clusterai.sdk.client import ApiError

    found, missing = asyncio.run(run())
    if json:
        say.emit({"grants": found, "missing": missing})
        return
    say.table(
        ("vault", "state", "operation", "#ε left", "#uses left", "until", "grant", "note"),
        [_row(it) for it in found],
    )
    for name, why in missing.items():
        title = titles.get(name)
        say.complain(f"{title} ({name[:10]}…): {why.replace(name, title)}" if title else f"{name}: {why}")
    if not names:
        say.say("nothing was asked yet → clusterai data request NAME --purpose …")


def _row(it: "Standing") -> tuple[object, ...]:
    import datetime

    return (
        it.name,
        it.state,
        it.operation,
        f"{it.epsilon - it.spent_epsilon:g}",
        it.uses - it.used,
        datetime.datetime.fromtimestamp(it.expires_s, datetime.UTC).date().isoformat(),
        (it.grant or it.request)[:10] + "…",
        "".join(one if one.isprintable() else " " for one in it.note),
    )


def review(
    dataset: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of a vault, OWNER/NAME, or its id.", show_default=False),
    ],
    program: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The granted program: Python, or WASM. It reads /job/in/rows.csv and leaves /job/out/result.json; what it says when it fails is "
            "reviewed like a result.",
            show_default=False,
        ),
    ],
    arg: Annotated[
        list[str] | None, typer.Option(help="Of the program; may be repeated.", show_default=False)
    ] = None,
    seconds: Annotated[
        int,
        typer.Option(
            min=1, max=60, help="What it may take, and when it is answered: how long it took isn't told."
        ),
    ] = 30,
    max_price: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="The most that it may cost.", show_default=False)
    ] = None,
    network: options.Network = None,
    identity: IdentityFile = None,
    data: options.Data = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a granted program over all rows of a vault. What it makes leaves when the vault's owner has read it."""
    import asyncio

    from clusterai.cli import asking
    from clusterai.cli.names import names_at
    from clusterai.protocol.money import BadAmount, parse
    from clusterai.protocol.money import show as money

    try:
        code = program.expanduser().read_bytes()
        most_wei = None if max_price is None else parse(max_price)
    except OSError as error:
        raise Failure(f"{program} can't be read", error.strerror or "", code=Exit.NOT_FOUND) from None
    except BadAmount as error:
        raise Failure(f"--max-price {max_price}", str(error), code=Exit.USAGE) from None
    who, names = identity_at(identity), names_at(identity, data, network)

    async def run() -> "asking.Ran":
        async with vaults_at(data, network) as reach:
            listed, _ = await asking.found(reach, dataset, names)
            return await asking.ran(reach, listed, who, code, tuple(arg or ()), seconds, most_wei)

    ran = asyncio.run(run())
    if json:
        say.emit(ran)
        return
    say.tell(f"ran {ran.order}, charged {money(ran.charged_wei)}")
    say.say(
        f"its owner reads what it made, or why it made nothing → clusterai data result {dataset} {ran.order}"
    )


def result(
    dataset: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of a vault, OWNER/NAME, or its id.", show_default=False),
    ],
    order: Annotated[
        str, typer.Argument(metavar="ORDER", help="As `review` printed it.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write here. Default: stdout.", show_default=False)
    ] = None,
    network: options.Network = None,
    identity: IdentityFile = None,
    data: options.Data = None,
    quiet: options.Quiet = False,
) -> None:
    """Get what a reviewed program left, once the vault's owner let it go; checked against the vault's signed log."""
    import asyncio

    from clusterai.cli import asking, keeping
    from clusterai.cli.names import names_at
    from clusterai.protocol.ids import BadId, digest

    try:
        named = digest(order)
    except BadId as error:
        raise Failure(f"{order[:80]} is no order", str(error), code=Exit.USAGE) from None
    who, names = identity_at(identity), names_at(identity, data, network)

    async def run() -> bytes:
        async with vaults_at(data, network) as reach:
            listed, _ = await asking.found(reach, dataset, names)
            return await asking.result(reach, listed, who, named)

    found = asyncio.run(run())
    if out is None:
        say.stdout().write(keeping.printable(found))
    else:
        out.write_bytes(found)
        say.say(f"{len(found)} bytes in {out}")
