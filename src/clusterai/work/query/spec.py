"""What is asked of private data, and what is answered: the request of an order, and the bytes that its tokens pack.

A query is signed by the requester's own key, and its answer sealed to the key that stands in the requester's grant: the gateway that carries and
pays for it can neither ask in its place nor read what came. It can read the question. One query's digest stands for it everywhere: as `Order.request`,
in the log of uses, and as what the noise is drawn from, so asking the same again is told the same and costs no further ε.
"""

from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.statements import AddressBytes, DigestBytes, SignatureBytes
from clusterai.protocol.vaults import Operation, SignedUse, subject
from clusterai.work.orders import SignedOrder
from clusterai.work.query.core.release import (
    LEAST_EPSILON_MICRO,
    MOST_EPSILON_MICRO,
    MOST_VALUE,
    Released,
)
from clusterai.work.query.core.sql import MOST_SQL
from clusterai.work.request import within

KIND_NAME = "query"
LEAST_BLOCKS, MOST_BLOCKS = 8, 256
MOST_BLOCK_S = 60
SPARE_S = 2
"""Of each block's slot, beyond what its program may take: walls go up and come down in it."""
MOST_SLOTS_S = 600
"""All slots of a query together: for so long it says nothing."""
MOST_OUTPUTS = 64
MOST_MICRO = 10**15
MOST_DELTA_PICO = 10**8
MOST_SEALED = 380_000
MOST_REQUEST = 16_384
"""With order and signatures it still fits an answer to a challenge on chain (24,576 bytes)."""


class Bound(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Of one number that a program gives; both in millionths."""

    low_micro: Annotated[int, Meta(ge=-MOST_MICRO, le=MOST_MICRO)]
    high_micro: Annotated[int, Meta(ge=-MOST_MICRO, le=MOST_MICRO)]

    def __post_init__(self) -> None:
        if self.low_micro >= self.high_micro:
            raise ValueError("a bound's low is below its high")


class QuerySpec(SignedOrder, frozen=True, tag="query.1"):
    """One query.

    Attributes:
        model: `subject(dataset, "query")`.
        snapshot: the version of the data that is asked.
        operation: QUERY has `sql`; CODE has `code`, `args`, `bounds`, `blocks` and `block_s`; REVIEW has `code`, `args` and `block_s`.
        code: digest of the program, which the vault got with the request for access.
        bounds: of each number that the program gives for a block; what it gives is clipped to them.
        block_s: what a block may take; each takes exactly that long, seen from outside.
        nonce: fresh; the same question with another nonce is another query, with other noise, and costs ε again.
    """

    model: DigestBytes
    dataset: DigestBytes
    snapshot: DigestBytes
    grant: DigestBytes
    requester: AddressBytes
    operation: Literal[1, 2, 3]
    sql: Annotated[str, Meta(max_length=MOST_SQL)]
    code: DigestBytes
    args: Annotated[tuple[Annotated[str, Meta(max_length=200)], ...], Meta(max_length=16)]
    bounds: Annotated[tuple[Bound, ...], Meta(max_length=MOST_OUTPUTS)]
    blocks: int
    block_s: int
    epsilon_micro: int
    delta_pico: int
    nonce: DigestBytes
    signature: SignatureBytes

    def __post_init__(self) -> None:
        asked = Operation(self.operation)
        if self.model != subject(Digest(self.dataset), KIND_NAME):
            raise ValueError("its model isn't the data set's subject")
        if (asked == Operation.QUERY) != bool(self.sql) or (asked == Operation.QUERY) != (
            self.code == ZERO_DIGEST
        ):
            raise ValueError("a query has SQL and no program, all else a program and no SQL")
        is_code = asked == Operation.CODE
        if is_code != bool(self.bounds):
            raise ValueError(
                "bounds belong to a program whose numbers are averaged over blocks, and to it alone"
            )
        within("blocks", self.blocks, LEAST_BLOCKS if is_code else 0, MOST_BLOCKS if is_code else 0)
        runs = asked != Operation.QUERY
        within("block_s", self.block_s, int(runs), MOST_BLOCK_S if runs else 0)
        within("seconds of all blocks", self.blocks * (self.block_s + SPARE_S), 0, MOST_SLOTS_S)
        is_free = asked == Operation.REVIEW
        within(
            "epsilon_micro",
            self.epsilon_micro,
            0 if is_free else LEAST_EPSILON_MICRO,
            0 if is_free else MOST_EPSILON_MICRO,
        )
        within("delta_pico", self.delta_pico, 0, MOST_DELTA_PICO if asked == Operation.QUERY else 0)
        if any("\0" in text for text in (self.sql, *self.args)):
            raise ValueError("a text holds a NUL")


def asked(
    *,
    dataset: Digest,
    snapshot: Digest,
    grant: Digest,
    requester: Address,
    nonce: bytes,
    epsilon_micro: int = 0,
    delta_pico: int = 0,
    sql: str = "",
    code: Digest = ZERO_DIGEST,
    args: tuple[str, ...] = (),
    bounds: tuple[Bound, ...] = (),
    blocks: int = 0,
    block_s: int = 0,
) -> QuerySpec:
    """A query that isn't signed yet; which operation follows from what is given.

    Raises:
        ValueError.
    """
    operation = Operation.QUERY if sql else Operation.CODE if bounds else Operation.REVIEW
    return QuerySpec(
        subject(dataset, KIND_NAME),
        dataset,
        snapshot,
        grant,
        requester,
        operation.value,
        sql,
        code,
        args,
        bounds,
        blocks,
        block_s,
        epsilon_micro,
        delta_pico,
        nonce,
        bytes(65),
    )


def decode_query(raw: bytes) -> QuerySpec:
    """
    Raises:
        canonical.Malformed: a stranger's nonsense.
    """
    return canonical.decode(raw, QuerySpec, MOST_REQUEST)


# --- what is sealed to the requester ---


class Averaged(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="averaged"):
    """Of a program over blocks: each number's noisy sum over the blocks, in steps from its low bound to its high one."""

    sums: Annotated[
        tuple[Annotated[int, Meta(ge=-MOST_VALUE, le=MOST_VALUE)], ...], Meta(max_length=MOST_OUTPUTS)
    ]


class Counted(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="counted"):
    """Of SQL."""

    released: Released


class Held(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="held"):
    """Of a program for review: what it made lies at the vault until the owner has read it. Nothing of it is told."""


class Result(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="query.result.1"):
    """What left the vault. Its digest is the `result` of the use.

    Attributes:
        schema: digest of the schema by which the answer is to be read.
        salt: follows from the noise's seed; without it the digest of a small answer could be guessed.
    """

    query: DigestBytes
    dataset: DigestBytes
    snapshot: DigestBytes
    schema: DigestBytes
    salt: DigestBytes
    told: Counted | Averaged | Held

    def digest(self) -> Digest:
        return canonical.digest(self)


def decode_result(raw: bytes) -> Result:
    """
    Raises:
        canonical.Malformed.
    """
    return canonical.decode(raw, Result)


# --- what the order's tokens pack ---


class Answer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="query.answer.1"):
    """
    Attributes:
        query: the spec's digest.
        use: the leaf of the log of uses, signed by the vault's hot key.
        sealed: the result's canonical bytes, sealed to the requester.
    """

    query: DigestBytes
    use: SignedUse
    sealed: Annotated[bytes, Meta(min_length=1, max_length=MOST_SEALED)]


RefusalCode = Annotated[str, Meta(max_length=32, pattern=r"\A[a-z_]+\Z")]


class Refusal(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="query.refusal.1"
):
    """No answer; nothing is owed. `detail` says nothing of the data, and the gateway can read it."""

    query: DigestBytes
    code: RefusalCode
    detail: Annotated[str, Meta(max_length=1_000)]


Said = Answer | Refusal


def decode_said(raw: bytes) -> Said:
    """
    Raises:
        canonical.Malformed.
    """
    return canonical.decode(raw, cast("type[Said]", Said))
