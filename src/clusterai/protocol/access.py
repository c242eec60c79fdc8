"""What a requester says to a vault's desk, inside sealed calls to `subject(dataset, "vault")`, and what the desk answers.

AskAccess   ──> Standing     how the request stands: denied, waiting for the owner, granted
AskStanding ──> Standing     all that this requester asked for here
AskData     ──> DataShown    schema, mock twin, policy: what one needs to write a program without the data
AskUses     ──> UsesShown    signed uses of this requester's grants: its proof of what the log must hold
any         ──> NotGiven
"""

from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.calls import MOST_CALL_BYTES
from clusterai.protocol.ids import Digest
from clusterai.protocol.statements import U8, U32, U40, U63, DigestBytes, Wei
from clusterai.protocol.vaults import SignedRequest, SignedUse

MOST_PURPOSE_BYTES = 4_000
MOST_CODE_BYTES = 512 * 1024
MOST_OUTPUT_BYTES = 256 * 1024
MOST_STANDINGS = 1_024
MOST_USES = 10_000

State = Literal["asked", "denied", "approved", "granted", "revoked", "expired"]
"""Of a request and what became of it. Approved: on its way to the chain."""


class _Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class AskAccess(_Message, frozen=True):
    """Asking twice for the same request is asking once.

    Attributes:
        purpose: the text whose digest the request names; for the owner to read.
        code: the program whose digest the request names, where it names one; for the owner to read.
    """

    signed: SignedRequest
    purpose: Annotated[str, Meta(max_length=MOST_PURPOSE_BYTES)]
    code: Annotated[bytes, Meta(max_length=MOST_CODE_BYTES)] = b""


class AskStanding(_Message, frozen=True):
    pass


class AskData(_Message, frozen=True):
    pass


class AskUses(_Message, frozen=True):
    """From the requester's `first` use on."""

    first: U32 = 0


class AskOutput(_Message, frozen=True):
    """What one's program left for review, under the order that ran it."""

    order: DigestBytes


class Status(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request and what became of it.

    Attributes:
        grant: its id; zeros while there is none.
        used: of `uses`. spent_micro: of `epsilon_micro`.
        note: the owner's word, or why it ended.
        milli_epsilon_wei, use_wei: the prices that were in force when it was granted.
    """

    request: DigestBytes
    grant: DigestBytes
    state: State
    operation: U8
    code: DigestBytes
    epsilon_micro: U63
    spent_micro: U63
    uses: U32
    used: U32
    expires_s: U40
    note: Annotated[str, Meta(max_length=2_000)]
    milli_epsilon_wei: Wei
    use_wei: Wei


class Standing(_Message, frozen=True):
    requests: Annotated[tuple[Status, ...], Meta(max_length=MOST_STANDINGS)]


class DataShown(_Message, frozen=True):
    """Everything here is public.

    Attributes:
        schema: JSON of `vault.core.schema.Schema`.
        mock: CSV of the mock twin.
        policy: the policy's file.
        requester_left_micro: ε that the policy leaves to who asked, over all its grants.
    """

    schema: Annotated[bytes, Meta(max_length=1 << 20)]
    mock: Annotated[bytes, Meta(max_length=8 << 20)]
    policy: Annotated[bytes, Meta(max_length=64 * 1024)]
    requester_left_micro: U63


class UsesShown(_Message, frozen=True):
    """`anchored`: how many leaves of the whole log stand on chain; a use of a lower index must be among them."""

    uses: Annotated[tuple[SignedUse, ...], Meta(max_length=MOST_USES)]
    anchored: U32


class OutputShown(_Message, frozen=True):
    """What the vault's owner let go; `use` is the log's leaf about it, whose result is the output's digest."""

    output: Annotated[bytes, Meta(max_length=MOST_OUTPUT_BYTES)]
    use: SignedUse


class NotGiven(_Message, frozen=True):
    """`code` as in `vault.core.terms.DenialCode`."""

    code: Annotated[str, Meta(max_length=32)]
    detail: Annotated[str, Meta(max_length=2_000)]


Ask = AskAccess | AskStanding | AskData | AskUses | AskOutput
Told = Standing | DataShown | UsesShown | OutputShown | NotGiven


def decode_ask(data: bytes) -> Ask:
    """
    Raises:
        Malformed.
    """
    return canonical.decode(data, cast("type[Ask]", Ask), 2 << 20)


def decode_told(data: bytes) -> Told:
    """
    Raises:
        Malformed.
    """
    return canonical.decode(data, cast("type[Told]", Told), MOST_CALL_BYTES)


def code_digest(code: bytes) -> Digest:
    """How a program stands in requests and grants: BLAKE3 of its bytes."""
    return canonical.content_digest(code)
