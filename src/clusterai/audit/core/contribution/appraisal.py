"""What a study says of its contributors, and how anyone finds that again from the same rows.

    commitments on chain ──> beacon ──> copies void ──> values of rows ──> per contributor ──> shares of the pot
                                                              └──> clearly below 0: a proposal to slash, with the evidence

Held-out rows come from nobody who is paid. Whoever holds the inputs calls `appraise` again and compares digests; a
contract need only take the evaluator's statement and wait for a challenge.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from clusterai.audit.core.contribution.copies import originals
from clusterai.audit.core.contribution.neighbours import UNIT, row_values
from clusterai.audit.core.contribution.shares import score_of
from clusterai.audit.core.contribution.whole import MOST_CLASSES, Ints, Rows, joined
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.pots import earned_wei
from clusterai.protocol.statements import AddressBytes, DigestBytes

POISON_MILLI = 5_000
"""Standard errors below 0, in thousandths, from which a contributor is proposed for slashing. Honest contributors' values are above 0
in the mean, so that even one at 0 gets there once in 3.5 million appraisals; a panel decides, not this number."""
POISON_ROWS = 30
"""Fewer rows of one's own than this are too few to call poison."""
SURE_ROWS = 16
"""Fewer rows of one's own than this are surely worth nothing, where a study asks for what is sure: their spread isn't known."""


class Study(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="study.3"):
    """What is fixed before anybody commits to data.

    Attributes:
        held_out: digest of the held-out rows.
        neighbours: K.
        radius_steps: see `copies`.
        pot_wei: what is shared out.
        quality_milli: the part of each share, in thousandths, that is earned by how clean the rows are: see `shares.score_of`.
        sure_milli: a value counts where it is above so many of its doubts, in thousandths; 0: where it is above 0.
        table: digest of the file with the held-out rows, whose scale is everybody's; zeros where there is none.
        label: the column to be told.
        columns: all others that count, in the order of the held-out file.
    """

    held_out: DigestBytes
    classes: Annotated[int, Meta(ge=2, le=MOST_CLASSES)]
    neighbours: Annotated[int, Meta(ge=1, le=1_000)]
    radius_steps: Annotated[int, Meta(ge=0, le=65_535)]
    pot_wei: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    quality_milli: Annotated[int, Meta(ge=0, le=1_000)] = 0
    sure_milli: Annotated[int, Meta(ge=0, le=10_000)] = 0
    table: DigestBytes = bytes(32)
    label: Annotated[str, Meta(max_length=256)] = ""
    columns: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=4_096)] = ()

    def digest(self) -> Digest:
        return canonical.digest(self)


class Contribution(msgspec.Struct, frozen=True):
    """A contributor's rows, in the order of the commitments on chain."""

    contributor: Address
    rows: Rows


class Appraised(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Of one contributor.

    Attributes:
        rows: digest of what was contributed.
        own, copied: rows that are his own, and such as somebody had before.
        value: sum over his rows and all held-out rows, in units of `neighbours.UNIT` for one held-out row.
        error: standard error of that sum over the held-out rows.
        doubt: standard error over the held-out rows and over his own together: how far the sum might be off with others of either. Wrong rows among
            right ones make it large, and the same rows under several names make it larger in all.
        quality_milli: of all rows that he gave, those that are his own and help, in thousandths.
        score: what the pot is shared by.
        poison: proposed for slashing.
    """

    contributor: AddressBytes
    rows: DigestBytes
    own: int
    copied: int
    value: int
    error: int
    doubt: int
    quality_milli: int
    score: int
    share_wei: int
    poison: bool


class Appraisal(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="appraisal.3"):
    """What an evaluator signs the digest of."""

    study: DigestBytes
    beacon: DigestBytes
    contributors: Annotated[tuple[Appraised, ...], Meta(max_length=4_096)]

    def canonical(self) -> bytes:
        return canonical.encode(self)

    def digest(self) -> Digest:
        """What `Rewards.scorePot` takes as evidence."""
        return canonical.digest(self)

    def scores(self, participants: Sequence[bytes]) -> tuple[int, ...]:
        """A pot's scores, in the order of its participants; who contributed nothing gets 0.

        Raises:
            NotTheStudys: somebody contributed who is no participant.
        """
        scores = {it.contributor: it.score for it in self.contributors}
        if not scores.keys() <= set(participants):
            raise NotTheStudys("a contributor is none of the pot's participants")
        return tuple(scores.get(bytes(it), 0) for it in participants)


class NotTheStudys(ValueError):
    """These held-out rows aren't the study's."""


def appraise(study: Study, contributions: list[Contribution], held_out: Rows, beacon: bytes) -> Appraisal:
    """
    Args:
        beacon: 32 bytes that nobody knew before the last commitment.

    Raises:
        NotTheStudys: other held-out rows, or none; or a contributor's rows are of another schema.
    """
    if held_out.digest() != study.held_out or not len(held_out):
        raise NotTheStudys(NotTheStudys.__doc__)
    if any(it.rows.features.shape[1] != held_out.features.shape[1] for it in contributions):
        raise NotTheStudys("a contributor's rows have other features than the held-out ones")
    owners = [it.contributor for it in contributions]
    if len(set(owners)) != len(owners):
        raise NotTheStudys("a contributor is named twice: join its rows")
    parts = [it.rows for it in contributions]
    own = originals(parts, held_out, study.radius_steps)
    kept = [rows.chosen(mask) for rows, mask in zip(parts, own, strict=True)]
    values = _by_contributor(kept, held_out, study, beacon)
    totals = [int(it.sum()) for it in values]
    qualities = [
        1_000 * int((it.sum(axis=0) > 0).sum()) // max(1, len(rows))
        for it, rows in zip(values, parts, strict=True)
    ]
    errors = [_error(it.sum(axis=1)) for it in values]
    doubts = [
        math.isqrt(error**2 + _spread(it.sum(axis=0))) for error, it in zip(errors, values, strict=True)
    ]
    sure = [
        not study.sure_milli or (len(rows) >= SURE_ROWS and 1000 * total > study.sure_milli * doubt)
        for rows, total, doubt in zip(kept, totals, doubts, strict=True)
    ]
    scores = [
        score_of(total, quality, study.quality_milli) if known else 0
        for total, quality, known in zip(totals, qualities, sure, strict=True)
    ]
    # In the order of a pot's participants, since equal remainders go to the first of them.
    rising = sorted(range(len(owners)), key=lambda at: owners[at])
    paid = dict(zip(rising, earned_wei(study.pot_wei, 0, tuple(scores[at] for at in rising)), strict=True))
    found: list[Appraised] = []
    for at, contribution in enumerate(contributions):
        error = errors[at]
        count = len(kept[at])
        bad = count >= POISON_ROWS and 1000 * totals[at] < -POISON_MILLI * error
        found.append(
            Appraised(
                contribution.contributor, contribution.rows.digest(), count, len(parts[at]) - count,
                totals[at], error, doubts[at], qualities[at], scores[at], paid[at], bad,
            )
        )  # fmt: skip
    return Appraisal(study.digest(), beacon, tuple(found))


def _by_contributor(kept: list[Rows], held_out: Rows, study: Study, beacon: bytes) -> list[Ints]:
    """For each contributor (held-out rows, his rows): values."""
    if not kept:
        return []
    values = row_values(joined(kept), held_out, study.classes, study.neighbours, beacon)
    ends = np.cumsum([len(it) for it in kept])
    return [values[:, end - len(it) : end] for it, end in zip(kept, ends, strict=True)]


def _error(at_held_out: Ints) -> int:
    """The standard error of the sum, by whole numbers."""
    return math.isqrt(_spread(at_held_out)) if len(at_held_out) > 1 else UNIT


def _spread(parts: Ints) -> int:
    """The variance of a sum, from its parts."""
    count = len(parts)
    values = [int(it) for it in parts]
    total = sum(values)
    return max(0, count * sum(it * it for it in values) - total * total) // max(1, count - 1)
