"""Shares summed under threshold CKKS: a vault's part in a round, and the requester's carrying of it.

Each vault keeps its share of the key in a process of its own (`vault.adapters.thresholdckks`), from the first link to the opening, and no longer. All vaults of a round must
open; one that leaves takes the round with it, and the others make a new key. A sum counts where everyone's signed tallies come to it.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.signing import Key
from clusterai.vault.adapters.thresholdckks import CannotOpen, CkksParty, NoOpenFhe, openfhe_python
from clusterai.vault.core.secagg import joint
from clusterai.work.hosting import Refused
from clusterai.work.joint.core.chain import (
    MASKS,
    PRIME,
    Claim,
    Link,
    Tally,
    blocks_digest,
    broken_link,
    false_claim,
    false_tally,
    round_of,
    tallied,
)
from clusterai.work.joint.spec import Encrypt, Encrypted, Join, Joined, Open, Opened, Study, Tell, Told

SETTING = "CLUSTERAI_OPENFHE_PYTHON"
MOST_ROUNDS = 4
"""Keys that one vault has a share of at once; each is a process."""
ROUND_S = 900.0
LIMB = 31
"""Bits of the lower of two halves in which an integer is encrypted: CKKS adds doubles, and a half's sum over thousands of vaults comes out whole by far (error below 0.01)."""


@lru_cache(1)
def found_python(setting: str | None = None) -> str:
    """The Python that has OpenFHE: as the environment says, or where its peers' environment is, or on PATH.

    Raises:
        NoOpenFhe.
    """
    usual = Path(sys.prefix) / "peers" / "openfhe" / "bin" / "python"
    return openfhe_python(setting or (str(usual) if usual.exists() else None))


def python() -> str:
    return found_python(os.environ.get(SETTING) or None)


def halved(values: joint.Integers) -> npt.NDArray[np.float64]:
    """Integers as two runs of numbers that doubles hold, below ±2^32 each: all upper halves, then all lower."""
    return np.concatenate([values >> LIMB, values & ((1 << LIMB) - 1)]).astype(np.float64)


def whole(halves: npt.NDArray[np.float64]) -> joint.Integers:
    """The sum of integers from the sum of their halves, exact.

    Raises:
        CannotOpen: no sum of integers.
    """
    if not np.isfinite(halves).all() or np.abs(halves).max() >= 2**45:
        raise CannotOpen("what came out are no sums")
    if np.abs(halves - (near := np.rint(halves))).max() > 0.25:
        raise CannotOpen("what came out are no whole numbers")
    upper, lower = np.split(near.astype(np.int64), 2)
    if np.abs(upper + (lower >> LIMB)).max() >= 1 << 31:
        raise CannotOpen("what came out are no sums")
    return (upper << LIMB) + lower


class Given(msgspec.Struct, frozen=True):
    """What a vault gives to sums.

    Attributes:
        mask: what hides its tally, by the key that its link made; see `noise.mask`.
    """

    study: Study
    order: Digest
    values: joint.Integers
    mask: Callable[[Digest], joint.Integers]


class _Round(msgspec.Struct):
    """One key, as far as it is made."""

    cohort: tuple[bytes, ...]
    party: CkksParty
    began_s: float
    link: Link
    public: bytes
    claim: Claim | None = None
    blocks: tuple[bytes, ...] = ()
    opened: tuple[bytes, ...] = ()
    claims: tuple[Claim, ...] = ()
    order: Digest = ZERO_DIGEST
    masked: tuple[int, ...] = ()
    tally: Tally | None = None


class ThresholdDesk:
    """A vault's end. Whoever calls has checked that the study was ordered, and whose it is."""

    def __init__(self, key: Key, clock: Callable[[], float], interpreter: Callable[[], str] = python) -> None:
        self._key, self._clock, self._interpreter = key, clock, interpreter
        self._rounds: dict[Digest, _Round] = {}
        self._alone = asyncio.Lock()

    async def ready(self) -> None:
        """
        Raises:
            Refused: there is no OpenFHE here.
        """
        try:
            await asyncio.to_thread(self._interpreter)
        except NoOpenFhe as error:
            raise Refused("no_openfhe", str(error)) from None

    async def close(self) -> None:
        for round_ in list(self._rounds):
            await self._end(round_)

    async def answer(self, given: Given, call: Join | Encrypt | Open | Tell) -> msgspec.Struct:
        """
        Raises:
            Refused.
        """
        study = given.study
        async with self._alone:
            for old in [it for it, one in self._rounds.items() if self._clock() - one.began_s > ROUND_S]:
                await self._end(old)
            cohort = tuple(bytes(it) for it in call.cohort)
            if not set(cohort) <= set(study.members) or len(set(cohort)) != len(cohort):
                raise Refused("company", "the round is over others than the study's vaults")
            if len(cohort) < study.quorum or self._key.address not in cohort:
                raise Refused(
                    "company", "the round is over too few of the study's vaults, or without this one"
                )
            name = round_of(study.digest, cohort)
            try:
                match call:
                    case Join(links=links, public=public):
                        return await self._join(name, cohort, links, public)
                    case Encrypt(links=links, public=public):
                        return await self._encrypt(self._round(name), name, links, public, given)
                    case Open(claims=claims, blocks=blocks):
                        return await self._open(self._round(name), name, claims, blocks)
                    case Tell(opened=opened, seed=seed):
                        return self._tell(self._round(name), opened, seed)
            except (CannotOpen, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                await self._end(name)
                raise Refused("key", f"its part of the key is gone: {str(error)[:200]}") from None

    def _round(self, name: Digest) -> _Round:
        round_ = self._rounds.get(name)
        if round_ is None:
            raise Refused("unknown_round", "this vault has no share of such a key: begin anew")
        return round_

    async def _join(
        self, name: Digest, cohort: tuple[bytes, ...], links: Sequence[Link], public: bytes
    ) -> Joined:
        known = self._rounds.get(name)
        if known is not None:
            # Asked again it says the same: two shares under one name would be two keys.
            return Joined(known.link, known.public)
        place = cohort.index(self._key.address)
        if len(links) != place:
            raise Refused("chain", "it isn't this vault's turn")
        if (why := broken_link(name, cohort, links)) is not None:
            raise Refused("chain", why)
        before = Digest(links[-1].after) if links else ZERO_DIGEST
        if (canonical.content_digest(public) if links else ZERO_DIGEST) != before:
            raise Refused("chain", "the key isn't the one that the last link made")
        if len(self._rounds) >= MOST_ROUNDS:
            raise Refused("busy", f"this vault has shares of {MOST_ROUNDS} keys: try later")
        await self.ready()
        party = CkksParty(self._interpreter())
        await party.__aenter__()
        try:
            made = await party.join(public if links else None)
        except BaseException:
            await party.__aexit__()
            raise
        link = Link(name, place, before, canonical.content_digest(made)).signed(self._key)
        self._rounds[name] = _Round(cohort, party, self._clock(), link, made)
        return Joined(link, made)

    async def _encrypt(
        self, round_: _Round, name: Digest, links: Sequence[Link], public: bytes, given: Given
    ) -> Encrypted:
        if round_.claim is not None:
            return Encrypted(round_.claim, round_.blocks)
        cohort = round_.cohort
        why = broken_link(name, cohort, links)
        if why is not None or len(links) != len(cohort) or links[round_.link.place] != round_.link:
            raise Refused("chain", why or "the chain isn't whole, or not with this vault's own link")
        key = canonical.content_digest(public)
        if links[-1].after != key:
            raise Refused("chain", "the key isn't the one that the last link made")
        masked = np.concatenate([np.asarray(given.values, np.int64), given.mask(Digest(round_.link.after))])
        blocks = tuple(await round_.party.encrypt(public, halved(masked)))
        round_.order, round_.masked = given.order, tuple(masked.tolist())
        round_.claim = Claim(name, round_.link.place, key, blocks_digest(blocks)).signed(self._key)
        round_.blocks = blocks
        return Encrypted(round_.claim, blocks)

    async def _open(
        self, round_: _Round, name: Digest, claims: tuple[Claim, ...], blocks: Sequence[Sequence[bytes]]
    ) -> Opened:
        own = round_.claim
        if own is None:
            raise Refused("order", "nothing was encrypted under this key yet")
        if round_.opened:
            if claims != round_.claims:
                # A second sum under one key could be subtracted from the first.
                raise Refused("twice", "this key opened another sum already")
            return Opened(round_.opened)
        why = false_claim(name, round_.cohort, own.key, claims, blocks)
        if why is not None or claims[own.place] != own:
            raise Refused("claims", why or "this vault's own ciphertexts aren't in it")
        # It adds them up itself: what is opened is the sum of exactly these.
        total = await round_.party.add(blocks)
        round_.opened = tuple(await round_.party.open(total, lead=own.place == 0))
        round_.claims = claims
        await round_.party.__aexit__()
        return Opened(round_.opened)

    def _tell(self, round_: _Round, opened: bytes, seed: bytes) -> Told:
        if not round_.opened:
            raise Refused("order", "nothing was opened under this key yet")
        if round_.tally is None:
            link, value = round_.link, tallied(round_.masked, seed)
            tally = Tally(round_.order, link.round, link.place, link.after, opened, seed, value)
            round_.tally = tally.signed(self._key)
        elif (round_.tally.opened, round_.tally.seed) != (opened, seed):
            # The difference of two would tell of the share.
            raise Refused("twice", "this key's sum was tallied already, by another seed")
        return Told(round_.tally)

    async def _end(self, name: Digest) -> None:
        round_ = self._rounds.pop(name, None)
        if round_ is not None:
            await round_.party.__aexit__()


class Gone(Exception):
    """A vault left the round: {who}, {why}."""

    def __init__(self, who: Address, why: str) -> None:
        super().__init__(f"0x{who.hex()} left the round: {why}")
        self.who, self.why = who, why


class FalseSum(RuntimeError):
    """What was opened isn't what the vaults' signed tallies come to: one of them lies, and which doesn't show. Ask again, with other vaults
    among them."""

    def __init__(self) -> None:
        super().__init__(
            "what was opened isn't what the vaults' signed tallies come to: one of them lies, and which doesn't show. "
            "Ask again, with other vaults among them"
        )


Send = Callable[[Address, Join | Encrypt | Open | Tell], Awaitable[Joined | Encrypted | Opened | Told]]


async def summed(
    send: Send, study: Study, orders: Mapping[Address, Digest], interpreter: str
) -> tuple[joint.Integers, tuple[Tally, ...]]:
    """One round, carried from vault to vault.

    Args:
        send: a call to a vault of the cohort, and its answer; raises Gone for one that can't be asked or objects.
        orders: what each vault of the cohort was ordered.

    Returns:
        The sum, and everyone's tally, in the cohort's order.

    Raises:
        Gone: make another round without that vault. CannotOpen: what came out is no sum. FalseSum.
    """
    cohort = tuple(orders)
    name, members = round_of(study.digest, cohort), tuple(bytes(it) for it in cohort)

    links: tuple[Link, ...] = ()
    public = b""
    for at, who in enumerate(cohort):
        said = await send(who, Join(study.digest, members, links, public))
        if not isinstance(said, Joined):
            raise Gone(who, "it answered something else")
        links, public = (*links, said.link), said.public
        why = broken_link(name, members, links)
        if why is not None or links[at].after != canonical.content_digest(public):
            raise Gone(who, why or "its link is of another key")
    key = canonical.content_digest(public)

    async def encrypted(who: Address) -> Encrypted:
        said = await send(who, Encrypt(study.digest, members, links, public))
        if not isinstance(said, Encrypted):
            raise Gone(who, "it answered something else")
        if said.claim.blocks != blocks_digest(said.blocks) or said.claim.key != key:
            raise Gone(who, "its claim is of other ciphertexts")
        return said

    given = await asyncio.gather(*map(encrypted, cohort))
    opening = Open(study.digest, members, tuple(it.claim for it in given), tuple(it.blocks for it in given))

    async def opened(who: Address) -> tuple[bytes, ...]:
        said = await send(who, opening)
        if not isinstance(said, Opened) or len(said.blocks) != len(given[0].blocks):
            raise Gone(who, "it answered something else")
        return said.blocks

    shares = await asyncio.gather(*map(opened, cohort))
    async with CkksParty(interpreter) as reader:
        for who, share in zip(cohort, shares, strict=True):
            if not await reader.reads(share):
                raise Gone(who, "its part of the opening can't be read")
        total = whole(await reader.fuse(shares, 2 * (joint.length(study.question) + MASKS)))

    # Only now: who knew the weights when it opened could shift a sum so that it doesn't show.
    seed = secrets.token_bytes(32)
    told_of = blocks_digest([block for share in shares for block in share])

    async def told(at: int, who: Address) -> Tally:
        said = await send(who, Tell(study.digest, members, told_of, seed))
        wanted = Tally(orders[who], name, at, links[at].after, told_of, seed, 0)
        if not isinstance(said, Told):
            raise Gone(who, "it answered something else")
        if (why := false_tally(said.tally, who, wanted)) is not None:
            raise Gone(who, why)
        return said.tally

    tallies = tuple(await asyncio.gather(*(told(at, who) for at, who in enumerate(cohort))))
    if (sum(it.value for it in tallies) - tallied(total.tolist(), seed)) % PRIME:
        raise FalseSum
    return total[:-MASKS], tallies
