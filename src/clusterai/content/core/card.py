"""A data set's card: Croissant JSON-LD for machines, a Hugging Face README for people, and where the bytes are.

The Croissant is what is listed and signed: its digest stands in the listing. All of it is the publisher's word; of what a
stranger's card says, only `Holding` is acted on, and it is decoded strictly.

Source: Hugging Face data set cards (YAML front matter).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from clusterai.content.core.manifest import MOST_BYTES, MOST_FILES, Manifest
from clusterai.content.core.reach import MOST_HOLDERS, MOST_URL
from clusterai.protocol.croissant import About, ColumnType, Field, FileObject, Records, dataset
from clusterai.protocol.ids import Digest, digest, hex0x

MOST_CARD_BYTES = 128 << 10
MOST_LISTED_FILES = 100
"""Named one by one in the card; the rest stands in the manifest alone."""
MOST_COLUMNS = 200
NAME = re.compile(r"\A[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")


class Table(msgspec.Struct, frozen=True):
    """A file with columns."""

    path: str
    columns: tuple[tuple[str, ColumnType], ...]


class Holding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one needs to fetch it.

    Attributes:
        manifest: the set's address, 0x hex.
        holders: base URLs; whoever reads them checks them (`core.reach.listed`).
    """

    kind: Literal["files"] = "files"
    version: Literal[1] = 1
    manifest: Annotated[str, Meta(pattern=r"\A0x[0-9a-f]{64}\Z")]
    bytes: Annotated[int, Meta(ge=0, le=MOST_BYTES)]
    files: Annotated[int, Meta(ge=0, le=MOST_FILES)]
    piece_bytes: Annotated[int, Meta(ge=1, le=MOST_BYTES)]
    holders: Annotated[
        tuple[Annotated[str, Meta(max_length=MOST_URL)], ...], Meta(max_length=MOST_HOLDERS)
    ] = ()

    @property
    def address(self) -> Digest:
        return digest(self.manifest)


class BadCard(ValueError):
    """No card of a data set that can be fetched: {why}."""


def holding(manifest: Manifest, holders: Sequence[str] = ()) -> Holding:
    return Holding(
        manifest=hex0x(manifest.address()),
        bytes=manifest.size,
        files=len(manifest.files),
        piece_bytes=manifest.piece_bytes,
        holders=tuple(holders),
    )


def croissant(
    about: About,
    held: Holding,
    manifest: Manifest,
    sha256: Mapping[str, str],
    types: Mapping[str, str],
    tables: Sequence[Table] = (),
) -> bytes:
    """The card's canonical bytes: JSON with sorted keys and no blanks.

    Args:
        sha256: of files by path, hex: Croissant knows no BLAKE3. types: their media types.

    Raises:
        BadCard: it would be longer than a card may be; describe less.
    """
    shown = [file for file in manifest.files if file.path in sha256][:MOST_LISTED_FILES]
    base = held.holders[0] + "/" if held.holders else ""
    files = [
        FileObject(
            file.path,
            f"{base}{file.path}",
            types.get(file.path, "application/octet-stream"),
            sha256[file.path],
            file.size,
        )
        for file in shown
    ]
    known = {file.path for file in shown}
    card = dataset(about, files, [_records(table) for table in tables if table.path in known])
    card["clusterai"] = msgspec.to_builtins(held)
    raw = canonical(card)
    if len(raw) > MOST_CARD_BYTES:
        raise BadCard(f"it has {len(raw)} bytes, a card has at most {MOST_CARD_BYTES}: describe less")
    return raw


def canonical(card: Mapping[str, Any]) -> bytes:
    """The bytes whose digest is signed: what is decoded from them gives them again."""
    return msgspec.json.encode(card, order="sorted")


def read(card: Mapping[str, Any]) -> Holding:
    """
    Raises:
        BadCard: it doesn't say where its bytes are, as a private vault's doesn't.
    """
    try:
        return msgspec.convert(card.get("clusterai"), Holding)
    except msgspec.ValidationError as error:
        raise BadCard(str(error)) from None


def readme(about: About, held: Holding) -> str:
    """A Hugging Face data set card."""
    front: dict[str, Any] = {
        "pretty_name": about.title or about.name,
        "license": (about.licence or "unknown").lower(),
        "language": list(about.languages),
        "tags": list(about.tags),
        "size_categories": [_size_category(held.bytes)],
    }
    # JSON is YAML, and quotes what has to be quoted.
    lines = [f"{name}: {msgspec.json.encode(value).decode()}" for name, value in front.items() if value]
    body = [
        f"# {about.title or about.name}",
        about.description or "",
        f"{held.files} files, {held.bytes} bytes. Address: `{held.manifest}`.",
        f"    clusterai data fetch {held.manifest} --to {about.name}"
        + "".join(f" --holder {url}" for url in held.holders[:3]),
    ]
    if about.personal:
        body += ["## Personal and sensitive information", about.personal]
    if about.cite:
        body += ["## Citation", about.cite]
    return "---\n" + "\n".join(lines) + "\n---\n\n" + "\n\n".join(part for part in body if part) + "\n"


def _records(table: Table) -> Records:
    name = table.path.rpartition("/")[2].partition(".")[0] or table.path
    return Records(f"records/{table.path}", name, table.path, tuple(Field(*it) for it in table.columns))


def _size_category(size: int) -> str:
    """Hugging Face counts rows, which we don't: bytes over a hundred are its usual guess."""
    rows = size // 100
    for most, name in (
        (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
        (10**8, "10M<n<100M"), (10**9, "100M<n<1B"),
    ):  # fmt: skip
        if rows < most:
            return name
    return "n>1T" if rows > 10**12 else "1B<n<10B"
