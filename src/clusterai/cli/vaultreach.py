"""How commands reach vaults and data sets: by name, owner or id, through a gateway that needn't be trusted."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from clusterai.cli import say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.names import Names
from clusterai.protocol import ids
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, BadId, Digest, checksummed
from clusterai.protocol.vaults import dataset_id
from clusterai.sdk.identity import Identity
from clusterai.sdk.vaults import ApiError, Done, Listed
from clusterai.sdk.vaultshapes import DataAway

MOST_OF_A_NAME = 100
"""Listings of one name, or of one owner, that are looked at."""
MOST_SHOWN = 5
AWAY_S, POLL_S = 10.0, 0.5
"""For so long a vault that has just lost its link is waited for: a machine that stood still for seconds has it again as soon."""
VAULT_AWAY = "vault_away"


class Reach(Protocol):
    """`sdk.vaults.Vaults`, as far as it is used here; tests have one without a network."""

    async def network(self) -> Domain: ...
    def find(self, text: str = "", owner: Address | None = None) -> AsyncIterator[Listed]: ...
    async def dataset(self, dataset: Digest) -> Listed: ...
    async def away(self, name: str) -> tuple[DataAway, ...]: ...
    async def ask(self, identity: Identity, data: Listed, kind: str, body: bytes) -> bytes: ...
    async def order(
        self,
        about: Digest,
        kind: str,
        request: bytes,
        max_price_wei: int | None = None,
        provider: Address | None = None,
        key: str = "",
    ) -> Done: ...


async def listed_as(reach: Reach, wanted: str, names: Names) -> Listed:
    """The data set of that name, of that owner (`0xOWNER`, `0xOWNER/NAME`), or of that id.

    Whichever it is, it is looked at once more by its id: that is where it is asked whose word it is.

    Raises:
        Failure: there is none, there are several, the name is another's now, or its listing isn't its owner's word.
        Untrue: its card isn't what its owner signed.
    """
    if not wanted.startswith("0x"):
        return await _named(reach, wanted.lower(), names)
    who, slash, name = wanted.partition("/")
    try:
        if not slash and len(who) > 42:
            return await _linked(reach, ids.digest(who), wanted)
        owner = ids.address(who)
    except BadId as error:
        raise Failure(f"{wanted[:80]} names no vault", str(error), code=Exit.USAGE) from None
    if slash:
        return await _linked(reach, dataset_id(owner, name.lower()), wanted)
    found = await _few(it async for it in reach.find("", owner) if it.listing.owner == owner)
    return await reach.dataset(_only(wanted, "of", found))


async def _named(reach: Reach, name: str, names: Names) -> Listed:
    network = await reach.network()
    found = await _few(it async for it in reach.find(name) if it.name == name)
    known = names.owner(network, name)
    if known is None:
        if not found and len(away := await reach.away(name)) == 1:
            listed = await _linked(reach, ids.digest(away[0].dataset), name)
        else:
            listed = await reach.dataset(_only(name, "called", found))
        owner = Address(listed.listing.owner)
        names.learn(network, name, owner)
        say.say(f"{name} is {checksummed(owner)}'s: from now on that name means this one alone")
        return listed
    mine = dataset_id(known, name)
    others = [it for it in found if it.dataset != mine]
    try:
        listed = await _linked(reach, mine, name)
    except ApiError as error:
        if error.status != 404:
            raise
        if not others:
            raise Failure(
                f"{name} isn't listed now",
                f"you know it as {checksummed(known)}'s",
                "try again later, or through another gateway",
                Exit.NOT_FOUND,
            ) from None
        raise Failure(
            f"{name} CHANGED HANDS: whoever lists it now isn't whom you know by that name",
            f"you know it as {checksummed(known)}'s, and here it is {_owners(others)}; nothing was sent",
            f"name it as {_names(others)} if you mean that one; clusterai data known --forget {name}",
            Exit.UNTRUE,
        ) from None
    if others:
        say.complain(
            f"somebody else lists a {name} too: {_names(others)}. You mean the one that you know, {checksummed(known)}'s"
        )
    return listed


async def _linked(reach: Reach, dataset: Digest, wanted: str) -> Listed:
    """The data set, also one whose vault lost its link a moment ago and has it again.

    Raises:
        Failure: its vault stays away. ApiError: nobody has it, or had.
    """
    ends_s = time.monotonic() + AWAY_S
    waited = False
    while True:
        try:
            return await reach.dataset(dataset)
        except ApiError as error:
            if error.code != VAULT_AWAY:
                raise
            if time.monotonic() >= ends_s:
                raise Failure(
                    f"{wanted}'s vault isn't linked at the moment",
                    error.detail,
                    "try again in a minute: who serves it may be starting it anew",
                    Exit.NOT_FOUND,
                ) from None
            if not waited:
                waited = True
                say.complain(f"waiting for {wanted}'s vault: {error.detail}")
        await asyncio.sleep(POLL_S)


async def _few(found: AsyncIterator[Listed]) -> list[Listed]:
    """Each once, and not endlessly many. Where there are vaults among them, they alone: files can't be asked."""
    some: dict[Digest, Listed] = {}
    async for it in found:
        some.setdefault(it.dataset, it)
        if len(some) == MOST_OF_A_NAME:
            break
    vaults = [it for it in some.values() if it.is_vault]
    return vaults or list(some.values())


def _only(wanted: str, how: str, found: list[Listed]) -> Digest:
    if len(found) == 1:
        return found[0].dataset
    raise Failure(
        f"{len(found) or 'no'} data sets are {how} {wanted}",
        f"they are {_names(found)}" if found else "",
        f"name the one that you mean, such as {_names(found[:1])}" if found else "clusterai data search",
        Exit.NOT_FOUND,
    )


def _names(found: Iterable[Listed]) -> str:
    return _some(f"{checksummed(Address(it.listing.owner))}/{it.name}" for it in found)


def _owners(found: Iterable[Listed]) -> str:
    return _some(f"{checksummed(Address(it.listing.owner))}'s" for it in found)


def _some(words: Iterable[str]) -> str:
    said = sorted(words)
    more = f" and {len(said) - MOST_SHOWN} more" if len(said) > MOST_SHOWN else ""
    return ", ".join(said[:MOST_SHOWN]) + more
