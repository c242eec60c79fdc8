"""What a folder says of itself: the front matter of its README.md, the columns of its tables, digests that Croissant wants."""

import csv
import hashlib
import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import yaml

from clusterai.content.core.card import MOST_COLUMNS, MOST_LISTED_FILES, Table
from clusterai.content.core.manifest import Manifest
from clusterai.protocol.croissant import About, ColumnType

MOST_README_BYTES = 256 << 10
MOST_DESCRIPTION = 4_000
SAMPLED_ROWS = 500
MOST_TABLES = 20


def about(folder: Path, name: str) -> About:
    """What README.md says, if there is one; a Hugging Face card is read as it is."""
    path = folder / "README.md"
    if not path.is_file() or path.stat().st_size > MOST_README_BYTES:
        return About(name)
    text = path.read_text(errors="replace")
    front: dict[str, Any] = {}
    if text.startswith("---\n"):
        head, _, text = text[4:].partition("\n---")
        try:
            found = yaml.safe_load(head)
        except yaml.YAMLError:
            found = None
        front = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    paragraphs = [part.strip() for part in text.split("\n\n")]
    title = next((part.lstrip("# ").splitlines()[0] for part in paragraphs if part.startswith("#")), "")
    plain = next(
        (part for part in paragraphs if part and not part.startswith(("#", "```", "    ", "|", "<"))), ""
    )
    return About(
        name,
        title=str(front.get("pretty_name") or title)[:200],
        description=str(front.get("description") or plain)[:MOST_DESCRIPTION],
        licence=str(front.get("license") or "")[:100],
        tags=_words(front.get("tags")),
        languages=_words(front.get("language")),
        creators=_words(front.get("authors") or front.get("creators")),
        url=str(front.get("homepage") or "")[:500],
        cite=str(front.get("citation") or "")[:MOST_DESCRIPTION],
    )


def with_flags(about: About, **flags: object) -> About:
    """What the command line says stands above what the folder says."""
    return msgspec.structs.replace(about, **{name: value for name, value in flags.items() if value})


def sha256(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Of the files that the card names one by one."""
    found: dict[str, str] = {}
    for file in manifest.files[:MOST_LISTED_FILES]:
        with (folder / file.path).open("rb") as opened:
            found[file.path] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found


def types(manifest: Manifest) -> dict[str, str]:
    return {
        file.path: mimetypes.guess_type(file.path)[0] or "application/octet-stream"
        for file in manifest.files[:MOST_LISTED_FILES]
    }


def tables(folder: Path, manifest: Manifest) -> list[Table]:
    """CSV and TSV files with a header; kinds are guessed from the first rows."""
    found: list[Table] = []
    for file in manifest.files:
        if len(found) == MOST_TABLES:
            break
        if file.path.endswith((".csv", ".tsv")):
            with (folder / file.path).open(newline="", errors="replace") as opened:
                reader = csv.reader(opened, delimiter="\t" if file.path.endswith(".tsv") else ",")
                try:
                    header = next(reader, list[str]())
                    rows = [row for _, row in zip(range(SAMPLED_ROWS), reader, strict=False)]
                except csv.Error:
                    continue
            if header and len(header) <= MOST_COLUMNS and all(header) and len(set(header)) == len(header):
                columns: list[tuple[str, ColumnType]] = [
                    (name[:200], _kind([row[at] for row in rows if at < len(row)]))
                    for at, name in enumerate(header)
                ]
                found.append(Table(file.path, tuple(columns)))
    return found


def _kind(values: Sequence[str]) -> ColumnType:
    told = [value for value in values if value.strip()]
    for kind, read in cast("list[tuple[ColumnType, Any]]", [("sc:Integer", int), ("sc:Float", float)]):
        try:
            for value in told:
                read(value)
        except ValueError:
            continue
        if told:
            return kind
    return "sc:Text"


def _words(found: object) -> tuple[str, ...]:
    if isinstance(found, str):
        return (found[:100],)
    if isinstance(found, list):
        return tuple(str(one)[:100] for one in cast("list[object]", found)[:50])
    return ()


def card_of(raw: bytes) -> Mapping[str, Any]:
    """
    Raises:
        ValueError: it is no JSON object.
    """
    return msgspec.json.decode(raw, type=dict[str, Any])
