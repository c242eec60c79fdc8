"""Cards and progress as people read them. What a stranger's card says is shown as text: no markup, no control characters."""

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import Any

from clusterai.cli import say
from clusterai.content.core.card import BadCard, read

MOST_SHOWN = 2_000


def plain(text: object, most: int = MOST_SHOWN) -> str:
    """A stranger's text for a terminal."""
    from rich.markup import escape

    return escape("".join(letter for letter in str(text)[:most] if letter.isprintable() or letter == "\n"))


def card(found: Mapping[str, Any]) -> None:
    rows: list[tuple[str, object]] = [
        (label, plain(value))
        for label, name in (
            ("name", "name"), ("title", "alternateName"), ("description", "description"), ("licence", "license"),
            ("version", "version"), ("url", "url"), ("tags", "keywords"), ("personal data", "rai:personalSensitiveInformation"),
        )
        if (value := found.get(name))
    ]  # fmt: skip
    try:
        held = read(found)
    except BadCard:
        rows.append(("bytes", "not public: ask its vault (clusterai data request)"))
    else:
        rows += [
            ("address", held.manifest),
            ("bytes", f"{held.bytes / 1e6:.1f} MB in {held.files} files"),
            *(("holder", plain(url)) for url in held.holders),
        ]
    say.pairs(rows)


@contextlib.contextmanager
def progress() -> Generator[Callable[[int, int], Callable[[int], None]]]:
    """A bar where somebody watches."""
    if say.is_quiet() or not say.person():
        yield lambda _all, _here: lambda _more: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    with Progress(
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=say.console(stderr=True),
    ) as bar:

        def begun(whole: int, here: int) -> Callable[[int], None]:
            task = bar.add_task("", total=whole, completed=here)
            return lambda more: bar.advance(task, more)

        yield begun
