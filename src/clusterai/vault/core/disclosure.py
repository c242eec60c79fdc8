"""Disclosure control: what a program left for review, looked through before its owner reads it.

Nothing here decides that an output is safe: no list of checks can. It says what an owner would have to look for by eye, and it stops what is plainly rows.

| finding | stops | what was found |
|---|---|---|
| `rows` | yes | a text of a private column stands in the output as it is |
| `binary` | yes | it isn't text: nobody can read what it hides |
| `values` | no | numbers of four digits and more stand in private columns as they are: a few may be chance, or a least and a most |
| `long` | no | more than an owner reads |
| `small_cells` | no | whole numbers below 10: they may count a handful of people |
| `many_numbers` | no | more numbers than a table of results has: rows may hide in them |
| `precise` | no | numbers with more than 6 digits after the point: a place to hide other things in |
| `anonymised` | no | personal data stood in it, as well as that is found, and was taken out |
"""

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from clusterai.protocol.access import MOST_OUTPUT_BYTES

LEAST_TEXT = 8
"""Shorter private texts are words that any output may hold."""
LEAST_DIGITS = 4
"""Shorter numbers stand in any table by chance."""
LONG_BYTES = 16 * 1024
SMALL_CELL = 10
MANY_NUMBERS = 500
PRECISE = 6

Code = Literal["rows", "binary", "values", "long", "small_cells", "many_numbers", "precise", "anonymised"]
STOPS: frozenset[Code] = frozenset({"rows", "binary"})
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.]*\d)")


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`detail` is for the owner alone: it may speak of the data."""

    code: Code
    detail: str

    @property
    def stops(self) -> bool:
        return self.code in STOPS


def examine(
    output: bytes, private_texts: Iterable[str | None], private_numbers: Iterable[Iterable[float | None]] = ()
) -> tuple[Finding, ...]:
    """
    Args:
        private_texts: of all private columns of texts, row by row.
        private_numbers: all private columns of numbers; they aren't read where no number of the output is long enough to be looked for.
    """
    try:
        text = output.decode()
    except UnicodeDecodeError:
        return (Finding("binary", "it is no UTF-8 text"),)
    if any(not (it.isprintable() or it in "\n\r\t") for it in text):
        return (Finding("binary", "it holds characters that don't print"),)
    found: list[Finding] = []
    copied = _copied(text, private_texts)
    if copied:
        found.append(Finding("rows", f"{copied} texts of private columns stand in it as they are"))
    numbers: list[str] = _NUMBER.findall(text)
    values = _stand_in(numbers, private_numbers)
    if values:
        found.append(
            Finding(
                "values", f"{values} numbers stand in private columns as they are: rows, or parts of them?"
            )
        )
    if len(output) > LONG_BYTES:
        found.append(Finding("long", f"{len(output)} bytes"))
    small = [it for it in numbers if "." not in it and 0 < abs(int(it)) < SMALL_CELL]
    if small:
        found.append(Finding("small_cells", f"{len(small)} whole numbers below {SMALL_CELL}"))
    if len(numbers) > MANY_NUMBERS:
        found.append(Finding("many_numbers", f"{len(numbers)} numbers"))
    precise = [it for it in numbers if len(it.partition(".")[2]) > PRECISE]
    if precise:
        found.append(
            Finding("precise", f"{len(precise)} numbers with more than {PRECISE} digits after the point")
        )
    return tuple(found)


def _copied(text: str, private_texts: Iterable[str | None]) -> int:
    """How many private texts stand in it; case and runs of white space don't hide one."""
    spread = _plain(text)
    seen: set[str] = set()
    for it in private_texts:
        if it is None:
            continue
        plain = _plain(it)
        if len(plain) >= LEAST_TEXT and plain not in seen and plain in spread:
            seen.add(plain)
    return len(seen)


def _stand_in(numbers: Iterable[str], private_numbers: Iterable[Iterable[float | None]]) -> int:
    """How many different ones of the output's longer numbers stand in a private column."""
    wanted = {float(it) for it in numbers if _digits(it) >= LEAST_DIGITS}
    if not wanted:
        return 0
    return len(set[float | None]().union(*(wanted.intersection(column) for column in private_numbers)))


def _digits(number: str) -> int:
    """Those that tell something: 0.0840 and 84.0 have two."""
    whole, point, part = number.removeprefix("-").partition(".")
    return len((whole + part).strip("0") if point else whole.lstrip("0"))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


__all__ = ["MOST_OUTPUT_BYTES", "STOPS", "Finding", "examine"]
