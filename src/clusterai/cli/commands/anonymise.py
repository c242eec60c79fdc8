"""`clusterai vault anonymise IN OUT`: personal data out of a text or a table, and what was done about it said."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure

if TYPE_CHECKING:
    from clusterai.vault.adapters.anonymising import Anonymiser

Columns = Annotated[
    str, typer.Option(metavar="NAME,…", help="Columns, separated by commas.", show_default=False)
]


def join(app: typer.Typer) -> None:
    """Into the group `vault`, which is there already where vaults are."""
    for known in app.registered_groups:
        if known.name == "vault" and known.typer_instance is not None:
            known.typer_instance.command()(anonymise)
            return
    group = typer.Typer(help="Private data that stays where it lies.", no_args_is_help=True)
    group.command()(anonymise)
    app.add_typer(group, name="vault")


def anonymise(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A text, or a table if it ends in .csv.", show_default=False)
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A new file.", show_default=False)],
    quasi: Columns = "",
    identifier: Columns = "",
    sensitive: Columns = "",
    text: Columns = "",
    k: Annotated[int, typer.Option("--k", min=2, help="At least so many rows look alike in --quasi.")] = 5,
    ell: Annotated[
        int, typer.Option("--l", min=1, help="With so many different values of --sensitive among them.")
    ] = 1,
    t: Annotated[
        float, typer.Option("--t", min=0, max=1, help="At most so far from all rows' distribution of them.")
    ] = 1.0,
    suppress: Annotated[
        float, typer.Option(min=0, max=100, help="Percent of rows that may be left out.")
    ] = 5.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="In texts, whatever looks like a name or a number goes.")
    ] = False,
    python: Annotated[
        Path | None,
        typer.Option(help="Python that has Presidio, ANJANA and pyCANON.", show_default=False),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Take personal data out of a text, or make a table's rows alike. Best effort: read what comes out before it leaves."""
    from clusterai.vault.adapters.anonymising import Anonymiser, AnonymiserGone, NotAnonymous

    if not source.is_file():
        raise Failure(f"{source} is no file", code=Exit.NOT_FOUND)
    if target.exists():
        raise Failure(f"{target} is there already", next="name a new file", code=Exit.BUSY)
    try:
        with Anonymiser(python) as anonymiser:
            if source.suffix == ".csv":
                raw, told = _table(
                    anonymiser,
                    source.read_text(),
                    quasi,
                    identifier,
                    sensitive,
                    text,
                    k,
                    ell,
                    t,
                    suppress,
                    strict,
                )
            else:
                raw, told = _text(anonymiser, source.read_text(), strict)
    except UnicodeDecodeError:
        raise Failure(f"{source} is no UTF-8 text") from None
    except NotAnonymous as error:
        raise Failure(f"{source} can't be made anonymous so", str(error)) from None
    except AnonymiserGone as error:
        raise Failure(
            str(error), "", "python scripts/install.py peers anonymise, or --python PATH", Exit.FAILED
        ) from None
    with target.open("x") as file:
        file.write(raw)
    if json:
        say.emit({"out": str(target), **told})
        return
    say.tell(str(target))
    say.say(", ".join(f"{name} {value}" for name, value in told.items()) or "nothing was found")
    say.say("names and places are missed: read it before it leaves (docs/how-to/anonymise.md has the shares)")


def _text(anonymiser: "Anonymiser", text: str, strict: bool) -> tuple[str, dict[str, object]]:
    from collections import Counter

    cleaned = anonymiser.text(text, strict=strict)
    return cleaned.text, dict(sorted(Counter(it.kind for it in cleaned.found).items()))


def _table(
    anonymiser: "Anonymiser",
    raw: str,
    quasi: str,
    identifier: str,
    sensitive: str,
    text: str,
    k: int,
    ell: int,
    t: float,
    suppress: float,
    strict: bool,
) -> tuple[str, dict[str, object]]:
    from clusterai.vault.adapters.anonymising import TablePlan, read_csv, write_csv

    if not quasi:
        raise Failure(
            "--quasi names no column",
            "a table's rows are made alike in them",
            "--quasi age,postcode,sex",
            Exit.USAGE,
        )
    plan = TablePlan(
        quasi=_names(quasi),
        identifiers=_names(identifier),
        sensitive=_names(sensitive),
        texts=_names(text),
        k=k,
        ell=ell,
        t=t,
        suppress_percent=suppress,
        strict=strict,
    )
    made = anonymiser.table(read_csv(raw), plan)
    return write_csv(made.columns), {"k": made.k, "l": made.ell, "t": made.t, "left_out": made.left_out}


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
