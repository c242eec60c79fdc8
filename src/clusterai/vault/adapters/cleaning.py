"""Texts on their way into a vault, and outputs on their way to its owner: anonymised where that is wanted (`core.cleaning`)."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

from clusterai.vault.adapters.anonymising import MOST_TEXT, Anonymiser, Cleaned
from clusterai.vault.core.schema import Anonymised, Schema

ROWS = 1_024
"""Cleaned together: texts that stand in many of them are read once."""
OUTPUT_S = 60.0
"""A hostile program leaves what takes patterns hours; others wait for the vault meanwhile."""


def cleaned_rows(
    schema: Schema, rows: Iterable[dict[str, Any]], python: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Rows with the texts anonymised whose columns say so. No process is started where none does.

    Raises:
        AnonymiserGone.
    """
    wanted: dict[str, Anonymised] = {it.name: it.anonymised for it in schema.columns if it.anonymised}
    if not wanted:
        yield from rows
        return
    left = iter(rows)
    with Anonymiser(python) as anonymiser:
        while some := list(islice(left, ROWS)):
            told: dict[Anonymised, dict[str, Cleaned]] = {}
            for how in set(wanted.values()):
                names = [name for name, asked in wanted.items() if asked == how]
                told[how] = _cleaned(anonymiser, (row[name] for row in some for name in names), how)
            for row in some:
                yield {
                    name: told[wanted[name]][value].text if name in wanted and value else value
                    for name, value in row.items()
                }


def cleaned_output(
    output: bytes, how: Anonymised, python: Path | None = None, seconds: float = OUTPUT_S
) -> tuple[bytes, dict[str, int]]:
    """What a program left, and how many of which kind were replaced. Of JSON the strings are cleaned, so that it stays JSON.

    What is no text is left: disclosure control stops it.

    Raises:
        AnonymiserGone: it isn't installed, or wasn't done in time.
    """
    try:
        text = output.decode()
    except UnicodeDecodeError:
        return output, {}
    texts: list[str] = []
    value: Any = None
    try:
        value = json.loads(text)
        _strings(value, texts)
    except (ValueError, RecursionError):
        texts = [text]
        value = text
    if not any(texts):
        return output, {}
    with Anonymiser(python, seconds) as anonymiser:
        told = _cleaned(anonymiser, texts, how)
    found = Counter(span.kind for it in texts if it for span in told[it].found)
    if not found:
        return output, {}
    if value is text:
        return told[text].text.encode(), dict(found)
    return json.dumps(_replaced(value, told), ensure_ascii=False).encode(), dict(found)


def _cleaned(anonymiser: Anonymiser, texts: Iterable[str | None], how: Anonymised) -> dict[str, Cleaned]:
    strict = how == "strict"
    different = list(dict.fromkeys(text for text in texts if text))
    short = [text for text in different if len(text) <= MOST_TEXT]
    told = dict(zip(short, anonymiser.texts(short, strict=strict), strict=True))
    return {text: told[text] if text in told else anonymiser.text(text, strict=strict) for text in different}


def _strings(value: Any, found: list[str]) -> None:
    match value:
        case str():
            found.append(value)
        case list():
            for it in cast("list[Any]", value):
                _strings(it, found)
        case dict():
            for name, it in cast("dict[str, Any]", value).items():
                found.append(name)
                _strings(it, found)
        case _:
            pass


def _replaced(value: Any, told: Mapping[str, Cleaned]) -> Any:
    match value:
        case str():
            return told[value].text if value else value
        case list():
            return [_replaced(it, told) for it in cast("list[Any]", value)]
        case dict():
            return {
                told[name].text if name else name: _replaced(it, told)
                for name, it in cast("dict[str, Any]", value).items()
            }
        case _:
            return value
