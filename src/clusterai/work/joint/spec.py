"""What is asked of a vault for a joint statistic, and what it answers: an order for its share, and calls in which the share leaves.

    requester                                          vault
    call  Hello(grant, snapshot, question, ε, δ)  ─────>  permitted? columns there?
                                                  <─────  Hi: the key that signs in sums, and whose it is
    call  Meet(the others' keys, whose they are)  ─────>  the chain is asked about each
    order ShareOrder(study)                       ─────>  ε is spent; its sums, its noise; the use is closed
                                                  <─────  Pledge: the signed use, whose result commits to the share
    call  Masking(frame), five                    ─────>  secure aggregation with the vaults of the study, or
    call  Join, Encrypt, Open, Tell               ─────>  its part in a key that nobody holds, in a sum under it, and in its check

A study names its vaults and their keys, and the order is signed over it: whoever is asked for a share knows in whose company it will be summed.
Calls are sealed between requester and vault; orders aren't, so a gateway reads the question, and nothing of what came.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.statements import U40, AddressBytes, DigestBytes, SignatureBytes
from clusterai.protocol.vaults import SignedUse
from clusterai.vault.core.secagg.cohort import Membership
from clusterai.vault.core.secagg.graph import quorum
from clusterai.vault.core.secagg.joint import Histogram, Moments, Regression
from clusterai.work.calls import Call, Frame, No
from clusterai.work.joint.core.chain import MOST_PARTIES, Claim, Cohort, Link, Tally
from clusterai.work.orders import SignedOrder

KIND_NAME = "joint"
LEAST_VAULTS, MOST_VAULTS = 3, 64
MOST_REQUEST = 16_384
"""With order and signatures it still fits an answer to a challenge on chain (24,576 bytes)."""
MOST_CALL_BYTES = 32 << 20
MOST_KEY_BYTES = 4 << 20
MOST_EPSILON_MICRO = 20_000_000
MOST_DELTA_PICO = 10**8
MICRO, PICO = 10**6, 10**12

Question = Moments | Histogram | Regression
Way = Literal["masks", "ckks"]
"""How shares are summed: under masks that cancel, or under a key that nobody holds."""


class Study(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="joint.study.1"):
    """One question to several vaults, the same for all of them; its digest names it.

    Attributes:
        subjects, members: the vaults and the keys with which they sign in sums, in one order.
        expires_s: no share of it leaves later.
    """

    requester: AddressBytes
    question: Question
    by: Way
    epsilon_micro: Annotated[int, Meta(ge=0, le=MOST_EPSILON_MICRO)]
    delta_pico: Annotated[int, Meta(ge=0, le=MOST_DELTA_PICO)]
    subjects: Annotated[tuple[DigestBytes, ...], Meta(min_length=LEAST_VAULTS, max_length=MOST_VAULTS)]
    members: Annotated[tuple[AddressBytes, ...], Meta(min_length=LEAST_VAULTS, max_length=MOST_VAULTS)]
    expires_s: U40
    nonce: DigestBytes

    def __post_init__(self) -> None:
        if len(self.subjects) != len(self.members):
            raise ValueError("each vault has one key")
        if len(set(self.subjects)) != len(self.subjects) or len(set(self.members)) != len(self.members):
            raise ValueError("vaults and keys are named once each")
        if bool(self.epsilon_micro) != bool(self.delta_pico):
            raise ValueError("ε and δ come together: Gaussian noise needs both")

    @property
    def digest(self) -> Digest:
        return canonical.digest(self)

    @property
    def quorum(self) -> int:
        """So many shares make a sum: a third may drop out, and of three nobody."""
        return max(LEAST_VAULTS, quorum(len(self.members)))


class ShareOrder(SignedOrder, frozen=True, tag="joint.1"):
    """Give your share of this study.

    Attributes:
        model: `subject(dataset, "joint")`, one of the study's.
        snapshot: the version of the data that is asked.
    """

    model: DigestBytes
    dataset: DigestBytes
    snapshot: DigestBytes
    grant: DigestBytes
    study: Study
    signature: SignatureBytes

    @property
    def requester(self) -> bytes:
        return self.study.requester

    @property
    def epsilon_micro(self) -> int:
        return self.study.epsilon_micro


def decode_order(raw: bytes) -> ShareOrder:
    """
    Raises:
        canonical.Malformed: a stranger's nonsense.
    """
    return canonical.decode(raw, ShareOrder, MOST_REQUEST)


# --- what the order's tokens pack ---


class Pledge(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="joint.pledge.1"):
    """The share is made, and paid for in ε. `use.result` is its `commitment`."""

    order: DigestBytes
    use: SignedUse


class Refusal(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="joint.refusal.1"
):
    """No share; nothing is owed. The gateway can read it, so `detail` says nothing of the data."""

    order: DigestBytes
    code: Annotated[str, Meta(max_length=40)]
    detail: Annotated[str, Meta(max_length=1_000)]


Said = Pledge | Refusal
_SAID: Any = Said
"""`type[T]` can't say a union."""


def decode_said(raw: bytes) -> Said:
    """
    Raises:
        canonical.Malformed.
    """
    return canonical.decode(raw, _SAID)


def commitment(salt: bytes, values: bytes) -> Digest:
    return canonical.content_digest(b"clusterai joint share" + salt + values)


# --- calls ---

Blocks = Annotated[
    tuple[Annotated[bytes, Meta(max_length=MOST_KEY_BYTES)], ...], Meta(min_length=1, max_length=64)
]
"""Ciphertexts of one vector."""


class Hello(Call, frozen=True):
    """Would you give a share of this? Costs nothing, and reserves nothing."""

    grant: DigestBytes
    snapshot: DigestBytes
    question: Question
    by: Way
    epsilon_micro: Annotated[int, Meta(ge=0, le=MOST_EPSILON_MICRO)]
    delta_pico: Annotated[int, Meta(ge=0, le=MOST_DELTA_PICO)]


class Hi(Call, frozen=True):
    """Yes. `member`: the address of the key that signs in sums; by `membership` the other vaults know that it is this one's."""

    member: AddressBytes
    membership: Membership


class Meet(Call, frozen=True):
    """These are the vaults of a study to come. A vault gives its share into no company that it wasn't shown.

    Attributes:
        memberships: of `members`, in their order.
    """

    grant: DigestBytes
    subjects: Annotated[tuple[DigestBytes, ...], Meta(max_length=MOST_VAULTS)]
    members: Annotated[tuple[AddressBytes, ...], Meta(max_length=MOST_VAULTS)]
    memberships: Annotated[tuple[Membership, ...], Meta(max_length=MOST_VAULTS)]


class Met(Call, frozen=True):
    """It will sum with them."""


class Again(Call, frozen=True):
    """Your process ended since this was ordered: make its share once more, of the ε that was spent."""

    order: ShareOrder


class Masking(Call, frozen=True):
    """One frame of secure aggregation, for a study that was ordered."""

    study: DigestBytes
    frame: bytes


class _Step(Call, frozen=True):
    """Of a round of threshold CKKS over `cohort`, in the order of the key's chain; see `core.chain`."""

    study: DigestBytes
    cohort: Cohort


class Join(_Step, frozen=True):
    """Add your share to the key of those before you; empty for the first."""

    links: Annotated[tuple[Link, ...], Meta(max_length=MOST_PARTIES)]
    public: Annotated[bytes, Meta(max_length=MOST_KEY_BYTES)]


class Encrypt(_Step, frozen=True):
    """Encrypt your share under this key, which all of you made."""

    links: Annotated[tuple[Link, ...], Meta(max_length=MOST_PARTIES)]
    public: Annotated[bytes, Meta(max_length=MOST_KEY_BYTES)]


class Open(_Step, frozen=True):
    """Open the sum of all these."""

    claims: Annotated[tuple[Claim, ...], Meta(max_length=MOST_PARTIES)]
    blocks: Annotated[tuple[Blocks, ...], Meta(max_length=MOST_PARTIES)]


class Tell(_Step, frozen=True):
    """Sign what your share and mask come to under the weights of this seed, which was drawn when everybody had opened.

    Attributes:
        opened: digest of what everybody opened.
    """

    opened: DigestBytes
    seed: DigestBytes


class Joined(Call, frozen=True):
    link: Link
    public: Annotated[bytes, Meta(max_length=MOST_KEY_BYTES)]


class Encrypted(Call, frozen=True):
    claim: Claim
    blocks: Blocks


class Opened(Call, frozen=True):
    """This vault's share of the decryption."""

    blocks: Blocks


class Told(Call, frozen=True):
    tally: Tally


Asked = Hello | Meet | Again | Masking | Join | Encrypt | Open | Tell
Answered = Hi | Met | Frame | No | Joined | Encrypted | Opened | Told
_ASKED: Any = Asked
_ANSWERED: Any = Answered


def decode_call(raw: bytes) -> Asked:
    """
    Raises:
        canonical.Malformed.
    """
    return canonical.decode(raw, _ASKED, MOST_CALL_BYTES)


def decode_reply(raw: bytes) -> Answered:
    """
    Raises:
        canonical.Malformed.
    """
    return canonical.decode(raw, _ANSWERED, MOST_CALL_BYTES)
