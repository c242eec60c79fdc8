"""What a command prints: data on stdout, everything else on stderr; colour only where a person looks.

rich is imported when it is first needed: `--help` and `--json` never load it.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from rich.console import Console

_quiet = False


def be_quiet(quiet: bool) -> None:
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    return _quiet


def say(text: str = "") -> None:
    """For people: progress, advice, the story. Markup of rich is allowed; `--quiet` silences it."""
    if not _quiet:
        console(stderr=True).print(text, highlight=False, soft_wrap=True)


def complain(text: str) -> None:
    """Printed whatever `--quiet` says."""
    print(text, file=sys.stderr, flush=True)


def emit(data: object) -> None:
    """The command's answer as JSON, for programs."""
    raw = msgspec.json.format(msgspec.json.encode(data), indent=2)
    print(raw.decode(), flush=True)


def tell(text: str = "") -> None:
    """The command's answer for people, on stdout."""
    console().print(text, highlight=False, soft_wrap=True)


class Checked(Protocol):
    """A row of a doctor."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def found(self) -> str: ...
    @property
    def cure(self) -> str: ...


def rows(found: Sequence[Checked], json: bool) -> bool:
    """What a doctor found; whether there is no red row."""
    healthy = all(row.state != "red" for row in found)
    if json:
        emit({"healthy": healthy, "rows": found})
        return healthy
    from rich.markup import escape

    colours = {"green": "[green]✓[/]", "yellow": "[yellow]![/]", "red": "[red]✗[/]"}
    for row in found:
        tell(f"{colours[row.state]} {row.name:<22} {escape(row.found)}")
        if row.cure:
            tell(f"  {'':<22} → {escape(row.cure)}")
    return healthy


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """The command's answer as a table on stdout; columns that begin with `#` are numbers."""
    from rich.table import Table

    sheet = Table(title=title, box=None, header_style="bold", pad_edge=False, title_justify="left")
    for column in columns:
        sheet.add_column(column.lstrip("#"), justify="right" if column.startswith("#") else "left")
    for row in rows:
        sheet.add_row(*(str(cell) for cell in row))
    console().print(sheet)


def pairs(rows: Iterable[tuple[str, object]]) -> None:
    """The command's answer as `name  value` lines on stdout."""
    from rich.table import Table

    sheet = Table(box=None, show_header=False, pad_edge=False)
    sheet.add_column(style="bold")
    sheet.add_column(overflow="fold")
    for name, value in rows:
        sheet.add_row(name, str(value))
    console().print(sheet)


def person(stream: Any = None) -> bool:
    """Whether somebody watches: a terminal that can be drawn on."""
    return bool((stream or sys.stderr).isatty()) and os.environ.get("TERM") != "dumb"


_consoles: "dict[bool, Console]" = {}


def console(stderr: bool = False) -> "Console":
    """rich obeys NO_COLOR and FORCE_COLOR; a pipe gets plain text as wide as it wants to be."""
    stream = sys.stderr if stderr else sys.stdout
    # While a status line is shown, rich stands before the stream; it is the same console then.
    stream = getattr(stream, "rich_proxied_file", stream)
    if stderr not in _consoles or _consoles[stderr].file is not stream:
        from rich.console import Console

        width = None if stream.isatty() or "COLUMNS" in os.environ else 200
        _consoles[stderr] = Console(file=stream, width=width, emoji=False)
    return _consoles[stderr]


def stdout() -> Any:
    return sys.stdout


def nth(number: int) -> str:
    """`1st`, `2nd`, `11th`."""
    last = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{last}"
