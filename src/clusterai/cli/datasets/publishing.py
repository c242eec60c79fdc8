"""A folder becomes a data set: manifest, card and README in its `.clusterai`, so that it can be held by anything that serves files."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.content import BadManifest, Holder, Manifest, NotPublishable, decode, scan, write_manifest
from clusterai.content.adapters import describing
from clusterai.content.adapters.folder import MANIFEST
from clusterai.content.core import card, paths, reach
from clusterai.protocol.ids import hex0x

CARD = f"{paths.OWN}/croissant.json"


class Published(msgspec.Struct, frozen=True):
    """What came of it. `address` is the manifest's; `dataset` the stable id where a listing was signed."""

    name: str
    address: str
    files: int
    bytes: int
    pieces: int
    card: str
    holders: tuple[str, ...]
    dataset: str = ""


class Wish(msgspec.Struct, frozen=True):
    """The command line's word on a folder."""

    name: str | None = None
    title: str | None = None
    description: str | None = None
    licence: str | None = None
    tags: tuple[str, ...] = ()
    personal: str | None = None
    holders: tuple[str, ...] = ()
    piece_bytes: int = 1 << 20


def describe(
    folder: Path, wish: Wish, moved: Callable[[int], None] | None = None
) -> tuple[Manifest, bytes, Published]:
    """Hash it, describe it, and put what holders need beside it.

    Raises:
        Failure: a name or a file can't be published.
    """
    if not folder.is_dir():
        raise Failure(
            f"{folder} is no folder", next="give the folder that holds the files", code=Exit.NOT_FOUND
        )
    name = wish.name or folder.resolve().name.lower().replace(" ", "-")
    if not card.NAME.match(name):
        raise Failure(
            f"{name!r} can't be a data set's name",
            "a to z, 0 to 9, dots and dashes",
            "name it: --name my-data",
        )
    holders = tuple(_held_at(url) for url in wish.holders)
    try:
        manifest = scan(folder, wish.piece_bytes, moved)
        path = write_manifest(folder, manifest)
        about = describing.with_flags(
            describing.about(folder, name),
            title=wish.title,
            description=wish.description,
            licence=wish.licence,
            tags=wish.tags,
            personal=wish.personal,
        )
        held = card.holding(manifest, holders)
        raw = card.croissant(
            about,
            held,
            manifest,
            describing.sha256(folder, manifest),
            describing.types(manifest),
            describing.tables(folder, manifest),
        )
    except (NotPublishable, BadManifest, card.BadCard, OSError) as error:
        raise Failure(f"{folder} can't be published", str(error)) from None
    (folder / CARD).write_bytes(raw)
    (folder / paths.OWN / "README.md").write_text(card.readme(about, held))
    return (
        manifest,
        raw,
        Published(
            name,
            hex0x(manifest.address()),
            len(manifest.files),
            manifest.size,
            manifest.count,
            str(path.parent),
            holders,
        ),
    )


def with_dataset(done: Published, dataset: str) -> Published:
    return msgspec.structs.replace(done, dataset=dataset)


def held(folder: Path) -> Manifest:
    """What was published there.

    Raises:
        Failure: nothing was.
    """
    path = folder / MANIFEST
    try:
        return decode(path.read_bytes())
    except (OSError, BadManifest) as error:
        raise Failure(
            f"{folder} holds no data set", str(error), f"clusterai data publish {folder}", Exit.NOT_FOUND
        ) from None


def holder(folder: Path, manifest: Manifest, rate_mbps: float) -> Holder:
    """
    Raises:
        Failure: the folder isn't what its manifest says.
    """
    from clusterai.content import HolderLimits

    try:
        return Holder(folder, manifest, HolderLimits(rate=int(rate_mbps * 1e6)))
    except NotPublishable as error:
        raise Failure(
            f"{folder} can't be held", str(error), f"clusterai data publish {folder}", Exit.UNTRUE
        ) from None


def _held_at(url: str) -> str:
    try:
        return reach.base(url, private=True)
    except reach.Unreachable as error:
        raise Failure(
            str(error), next="name where others reach it: --holder https://…", code=Exit.USAGE
        ) from None


def listed_at(wish: Sequence[str]) -> list[str]:
    """Those of these holders that strangers won't dial."""
    return [url for url in wish if not reach.listed([url])]
