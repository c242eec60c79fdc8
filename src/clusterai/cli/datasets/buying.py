"""Buying a copy: asked for, paid on chain into escrow, granted, fetched from whoever has its pieces, opened and checked.

    request (COPY) ──> Approve, BuyCopy ──> grant ──> AskKey ──> pieces: holders and the vault itself ──> CSV

Each step can be taken again: a request that stands isn't made twice, a copy that is paid isn't paid twice, and pieces that came stay.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from clusterai.cli import asking
from clusterai.cli.failure import Exit, Failure
from clusterai.content import (
    BadManifest,
    File,
    InTheWay,
    Landing,
    Manifest,
    NotWhole,
    Source,
    Web,
    fetch,
    open_source,
)
from clusterai.content.adapters.sources import HolderFault
from clusterai.protocol import canonical, copies
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Digest, hex0x
from clusterai.protocol.ids import digest as read_digest
from clusterai.protocol.money import show as money
from clusterai.protocol.vaults import Operation
from clusterai.sdk.client import ApiError, Unreachable
from clusterai.sdk.identity import Identity, NotFromVault
from clusterai.sdk.vaults import Listed, Untrue, Vaults
from clusterai.vault.adapters import opening
from clusterai.vault.core.card import VaultFacts

GRANTED_S = 600.0
POLL_S = 1.0
PIECES = ".clusterai-copy"
LIVE = ("asked", "approved", "granted")

Pay = Callable[[Listed, Digest, int], Awaitable[None]]
"""Pays for a request at most so much; nothing happens where it was paid before."""


class Bought(msgspec.Struct, frozen=True):
    """The command's answer."""

    dataset: str
    request: str
    grant: str
    price_wei: int
    to: str
    rows: int
    bytes: int
    """of encrypted pieces, fetched now or before"""


class OfVault:
    """The vault itself as a holder of its encrypted pieces, over sealed calls."""

    def __init__(self, vaults: Vaults, listed: Listed, who: Identity, grant: Digest, hands: int = 2) -> None:
        self.name = f"vault {hex0x(listed.dataset)[:18]}"
        self.hands = hands
        self._ask = (vaults, listed, who, grant)

    async def read(self, path: str, start: int, size: int, whole: int) -> AsyncGenerator[bytes, None]:
        vaults, listed, who, grant = self._ask
        try:
            told = await _told(
                vaults, listed, who, copies.AskPiece(grant, bytes.fromhex(path.replace("/", "")))
            )
        except (Failure, ApiError, Unreachable) as error:
            raise HolderFault(f"{self.name}: {error}") from None
        if not isinstance(told, copies.PieceGiven) or len(told.box) != whole:
            raise HolderFault(f"{self.name} doesn't give the piece")
        yield told.box[start : start + size]

    async def small(self, path: str, most: int) -> bytes:
        raise HolderFault(f"{self.name} has no such file")

    async def close(self) -> None:
        """The client is everybody's."""


async def buy(
    vaults: Vaults,
    listed: Listed,
    facts: VaultFacts,
    who: Identity,
    purpose: str,
    most_wei: int,
    to: Path,
    holders: Sequence[str],
    pay: Pay,
    say: Callable[[str], None],
) -> Bought:
    """
    Raises:
        Failure: at whichever step; the next try goes on there.
    """
    price_wei = priced(listed, facts, most_wei)
    standing = await _asked(vaults, listed, who, purpose, most_wei)
    if standing.state == "asked":
        raise Failure(
            f"{listed.name} was asked; its owner decides",
            "nothing is paid before",
            f"clusterai data grants tells when; then clusterai data buy {listed.name} --to {to}",
        )
    if standing.state != "granted" and price_wei:
        say("paying into escrow")
        await pay(listed, read_digest(standing.request), most_wei)
    if standing.state != "granted":
        say("waiting for the grant")
    grant = await _granted(vaults, listed, who, standing.request)
    say("fetching")
    given = await _told(vaults, listed, who, copies.AskKey(grant))
    if not isinstance(given, copies.KeyGiven):
        raise Failure(f"{listed.name} gives no key", getattr(given, "detail", ""))
    try:
        schema = opening.checked(given, Digest(listed.listing.snapshot))
        place = to.with_name(f".{to.name}{PIECES}")
        await _pieces(given, place, [OfVault(vaults, listed, who, grant)], holders)
        rows = opening.write(given, schema, lambda it: _file(place, it).read_bytes(), to)
    except opening.NotTheData as error:
        raise Failure(str(error), code=Exit.UNTRUE) from None
    except ValueError as error:
        raise Failure(str(error), code=Exit.BUSY) from None
    _clear(place)
    size = sum(piece.size for piece in given.pieces)
    return Bought(hex0x(listed.dataset), standing.request, hex0x(grant), price_wei, str(to), rows, size)


def priced(listed: Listed, facts: VaultFacts, most_wei: int | None) -> int:
    """What a copy costs.

    Raises:
        Failure: it isn't for sale, or dearer than that.
    """
    if "copy" not in str(facts.policy.get("operations", [])):
        raise Failure(
            f"{listed.name} isn't for sale",
            "its policy allows no copies",
            f"clusterai data show {listed.name} tells what can be asked of it",
        )
    _, _, price_wei = asking.prices_of(facts.policy, Operation.COPY)
    if most_wei is not None and price_wei > most_wei:
        raise Failure(
            f"a copy of {listed.name} costs {money(price_wei)}",
            f"at most {money(most_wei)} was said",
            "--max-price with more",
        )
    return price_wei


async def _asked(
    vaults: Vaults, listed: Listed, who: Identity, purpose: str, most_wei: int
) -> asking.Standing:
    """The request for a copy that stands already, or a new one."""
    for standing in await asking.standings(vaults, listed, who):
        if standing.operation == "copy" and standing.state in LIVE and standing.expires_s > time.time():
            return standing
    wish = asking.Wish(int(Operation.COPY), purpose, 0, 1, most_wei, 30, b"")
    return await asking.request(vaults, listed, who, wish)


async def _granted(vaults: Vaults, listed: Listed, who: Identity, request: str) -> Digest:
    ends_s = time.monotonic() + GRANTED_S
    while True:
        for standing in await asking.standings(vaults, listed, who):
            if standing.request != request:
                continue
            if standing.state == "granted" and standing.grant:
                return read_digest(standing.grant)
            if standing.state not in LIVE:
                raise Failure(f"the request is {standing.state}", standing.note)
        if time.monotonic() > ends_s:
            raise Failure(
                f"no grant within {GRANTED_S:.0f} s",
                "what was paid lies in escrow, and goes back if nothing is delivered within the hour",
                "run it again, or clusterai data refund then",
            )
        await asyncio.sleep(POLL_S)


async def _told(vaults: Vaults, listed: Listed, who: Identity, ask: copies.Ask) -> copies.Told:
    try:
        return copies.decode_told(await vaults.ask(who, listed, copies.SUBJECT, canonical.encode(ask)))
    except (NotFromVault, Malformed, Untrue) as error:
        raise Failure(f"{listed.name} didn't answer this", str(error), code=Exit.UNTRUE) from None


async def _pieces(given: copies.KeyGiven, place: Path, own: Sequence[Source], holders: Sequence[str]) -> None:
    """All encrypted pieces, from the vault and from whoever holds them: `ab/cd…` under a holder's URL."""
    try:
        manifest = manifest_of(given)
        async with Web(private=True) as web:
            sources = [*(open_source(url, web) for url in holders), *own]
            with Landing(place, manifest) as landing:
                await fetch(landing, sources)
    except NotWhole as error:
        why = "; ".join(f"{it.holder}: {it.why or it.state}" for it in error.shares)
        raise Failure(str(error), why[:1000], "run it again to go on from here") from None
    except (BadManifest, InTheWay, HolderFault, OSError) as error:
        raise Failure("the pieces can't be fetched", str(error)) from None


def manifest_of(given: copies.KeyGiven) -> Manifest:
    """The pieces as a data set: each is one file, named by the hash that it has.

    Raises:
        BadManifest: two are the same.
    """
    files = sorted((_path(piece.address), piece.size, bytes(piece.address)) for piece in given.pieces)
    return Manifest(copies.MOST_PIECE_BYTES, tuple(File(*it) for it in files))


def _path(address: bytes) -> str:
    name = address.hex()
    return f"{name[:2]}/{name[2:]}"


def _file(place: Path, address: bytes) -> Path:
    return place / _path(address)


def _clear(place: Path) -> None:
    import shutil

    shutil.rmtree(place, ignore_errors=True)
