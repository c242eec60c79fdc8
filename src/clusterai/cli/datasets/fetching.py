"""Fetching a data set: from its id, its address or a holder's URL to a folder in which every byte was checked."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from clusterai.cli.datasets.remembered import Remembered
from clusterai.cli.failure import Exit, Failure
from clusterai.content import (
    BadManifest,
    Fetched,
    HolderFault,
    InTheWay,
    Landing,
    Manifest,
    NotWhole,
    Source,
    Unreachable,
    Web,
    decode,
    fetch,
    fetch_manifest,
    listed,
    open_source,
)
from clusterai.content.adapters.fetching import NoManifest, Share
from clusterai.content.adapters.folder import MANIFEST
from clusterai.content.core.manifest import MOST_MANIFEST_BYTES
from clusterai.protocol.ids import Digest, hex0x


class Wanted(msgspec.Struct, frozen=True):
    """What to fetch and of whom.

    Attributes:
        address: None: whatever the named holders say that it is, which is then said.
        named: holders that a person named: any URL, private addresses too.
        told: holders that a listing names: judged before they are dialled.
        private: those may be of one's own network too.
    """

    address: Digest | None
    named: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    private: bool = False


class Here(msgspec.Struct, frozen=True):
    """The command's answer."""

    address: str
    to: str
    files: int
    bytes: int
    fetched_bytes: int
    wall_s: float
    mb_per_s: float
    holders: tuple[Share, ...]
    wrong: int
    """pieces that came and weren't right"""


Begun = Callable[[int, int], Callable[[int], None]]
"""Called with all bytes and those that are here already; what it returns with each further number of bytes."""


def bring(wanted: Wanted, to: Path, begun: Begun, remembered: Remembered) -> Here:
    """
    Raises:
        Failure: with what is missing and why; what came stays and the next call goes on.
    """
    try:
        return asyncio.run(_bring(wanted, to, begun, remembered))
    except NoManifest as error:
        raise Failure(
            f"no holder has 0x{(wanted.address or b'').hex()[:16]}…",
            "; ".join(error.why)[:500] or "none is named",
            "name one: --holder URL"
            + (
                ""
                if wanted.private or not wanted.told
                else "; or --private, if its holders are in your own network"
            ),
            Exit.NOT_FOUND,
        ) from None
    except NotWhole as error:
        wrong = any(it.state == "corrupt" for it in error.shares)
        raise Failure(
            str(error),
            "; ".join(f"{it.holder}: {it.why or it.state}" for it in error.shares)[:1000],
            "run it again to go on from here, or name more holders: --holder URL",
            Exit.UNTRUE if wrong else Exit.FAILED,
        ) from None
    except InTheWay as error:
        raise Failure(str(error), next="--to another folder", code=Exit.BUSY) from None
    except (BadManifest, Unreachable, HolderFault) as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"can't write to {to}", str(error)) from None


async def _bring(wanted: Wanted, to: Path, begun: Begun, remembered: Remembered) -> Here:
    async with Web(private=True) as mine, Web(private=wanted.private) as theirs:
        sources: list[Source] = [open_source(url, mine) for url in wanted.named]
        sources += _told(wanted, theirs)
        sources = list({source.name: source for source in sources}.values())
        manifest = await _manifest(wanted.address, to, sources)
        address = hex0x(manifest.address())
        with Landing(to, manifest) as landing:
            report = begun(manifest.size, landing.have_bytes)
            avoid = remembered.of(address)
            try:
                got = await fetch(landing, sources, report, avoid)
            except NotWhole as error:
                remembered.add(error.evidence)
                raise
        remembered.add(got.evidence)
    return _here(address, to, manifest, got)


def _told(wanted: Wanted, web: Web) -> list[Source]:
    if not wanted.private:
        return [web.holder(url) for url in listed(wanted.told)]
    found: list[Source] = []
    for url in wanted.told[:16]:
        try:
            found.append(web.holder(url))
        except Unreachable:
            continue
    return found


async def _manifest(address: Digest | None, to: Path, sources: Sequence[Source]) -> Manifest:
    """From the folder, if it was begun before; else from holders."""
    known = to / MANIFEST
    if known.is_file() and known.stat().st_size <= MOST_MANIFEST_BYTES:
        try:
            found = decode(known.read_bytes(), address)
        except BadManifest:
            found = None
        if found is not None:
            return found
    if address is not None:
        return await fetch_manifest(address, sources)
    if not sources:
        raise HolderFault("no holder was named")
    return decode(await sources[0].small(MANIFEST, MOST_MANIFEST_BYTES))


def _here(address: str, to: Path, manifest: Manifest, got: Fetched) -> Here:
    return Here(
        address,
        str(to),
        len(manifest.files),
        manifest.size,
        got.bytes,
        round(got.wall_s, 3),
        round(got.bytes / max(got.wall_s, 1e-9) / 1e6, 1),
        got.shares,
        len(got.evidence),
    )


def card_at(url: str) -> Mapping[str, Any]:
    """The card that a holder shows: its word.

    Raises:
        Failure: it shows none.
    """
    from clusterai.content.adapters.describing import card_of
    from clusterai.content.core.card import MOST_CARD_BYTES

    async def ask() -> bytes:
        async with Web(private=True) as web:
            return await open_source(url, web).small(".clusterai/croissant.json", MOST_CARD_BYTES)

    try:
        return card_of(asyncio.run(ask()))
    except (HolderFault, Unreachable, ValueError) as error:
        raise Failure(f"{url} shows no card", str(error), code=Exit.NOT_FOUND) from None
