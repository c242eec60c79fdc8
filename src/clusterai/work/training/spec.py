"""What is asked of a vault in federated training, and what it answers: a run once, then an order for each round, and calls for bulk.

    requester                                         vault
    call  Hello                               ─────>
                                              <─────  Hi: the key that signs in secure aggregation, its limits
    call  Begin(run, app's bundle)            ─────>  permit: a grant for this app's digest
    call  Put(message)                        ─────>  the round's message, whose digest the order names
    order Round                               ─────>  budget; the app, in the sandbox; clip, weigh, quantise, noise
                                              <─────  Done: commitment to its vector, what was spent, the signed use
    call  Masking(frame), five                ─────>  secure aggregation (`vault.core.secagg`), or
    call  Plain                               ─────>  the vector itself, where the vault's policy and the run say so
    call  End                                 ─────>  everything of the run is forgotten

Calls are sealed between requester and vault; orders aren't, so nothing in them is secret. A repeated order gets the same answer, also after
a restart, and spends nothing: two answers to one order would be two sums to subtract. Another order of the same number is refused.
"""

import json
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.statements import AddressBytes, DigestBytes, SignatureBytes
from clusterai.vault.core.secagg.cohort import Membership
from clusterai.work.calls import Call, Frame, No
from clusterai.work.training.core.bounds import MOST_METRICS, MOST_VAULTS
from clusterai.work.training.core.bundle import MOST_BUNDLE_BYTES

KIND_NAME = "training"
MOST_BLOCKS = 1_024
LEAST_GROUP = 3
"""Groups of fewer hide nobody."""
MOST_ROUNDS = 10_000
MOST_CONFIG_BYTES = 64 * 1024
MOST_MESSAGE_BYTES = 60 << 20
MOST_NOISE_MILLI = 1_000_000
MICRO = 1_000_000

Text = Annotated[str, Meta(max_length=128)]


class Run(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="training.run.1"):
    """All that stays the same over a run; its digest names it.

    Attributes:
        app: digest of the bundle: the `code` of the grants.
        config: run configuration that overrides the app's own, as JSON.
        weight: the metric whose value is a reply's weight, as the strategy says.
        subjects, members: the vaults and their keys, in one order: a vault's place in it is its `partition-id`.
        norm_micro: no update is longer than this, in millionths.
        noise_milli: the noise's deviation in the sum of all, over what one person can change, in thousandths; 0: no ε.
        blocks: into how many parts each vault deals its rows; the app runs once for each.
        masked: vectors leave by secure aggregation only.
        together: noise in shares, enough in the sum of two thirds of the vaults. Who brings vaults of its own into the run knows their shares, so
            owners who don't know their requesters refuse it: then each vault adds all of the noise itself.
        groups: into how many groups each round's vaults are drawn at most, whose sums open one by one. With several, every vault counts the
            same, whatever its rows: who may say how much it counts, drowns its group.
    """

    nonce: DigestBytes
    app: DigestBytes
    requester: AddressBytes
    config: Annotated[bytes, Meta(max_length=MOST_CONFIG_BYTES)]
    weight: Text
    subjects: Annotated[tuple[DigestBytes, ...], Meta(min_length=1, max_length=MOST_VAULTS)]
    members: Annotated[tuple[AddressBytes, ...], Meta(min_length=1, max_length=MOST_VAULTS)]
    norm_micro: Annotated[int, Meta(ge=1, le=10**15)]
    noise_milli: Annotated[int, Meta(ge=0, le=MOST_NOISE_MILLI)]
    delta_pico: Annotated[int, Meta(ge=0, le=10**9)]
    blocks: Annotated[int, Meta(ge=1, le=MOST_BLOCKS)]
    masked: bool
    together: bool = False
    groups: Annotated[int, Meta(ge=1, le=MOST_VAULTS // LEAST_GROUP)] = 1

    def __post_init__(self) -> None:
        if len(set(self.subjects)) != len(self.subjects) or len(self.members) != len(self.subjects):
            raise ValueError("vaults are named once each, with one key each")
        if len(set(self.members)) != len(self.members):
            raise ValueError("two vaults with one key")
        if bool(self.noise_milli) != bool(self.delta_pico):
            raise ValueError("noise and δ come together")
        if self.blocks > 1 and not self.noise_milli:
            raise ValueError("blocks are for runs with ε")
        if self.groups > 1 and (not self.masked or self.together):
            raise ValueError(
                "groups are for masked sums, and not for noise in shares: the noise of a group isn't enough"
            )
        if self.groups > 1 and len(self.members) < LEAST_GROUP * self.groups:
            raise ValueError(
                f"{self.groups} groups need {LEAST_GROUP * self.groups} vaults: smaller ones hide nobody"
            )
        if self.noise_milli and self.noise_milli < 100:
            raise ValueError("a multiplier below 0.1 protects nothing: ask for less ε")
        self.configured()

    def configured(self) -> dict[str, Any]:
        found: Any = json.loads(self.config) if self.config else {}
        if not isinstance(found, dict):
            raise TypeError("a run configuration is an object")
        return cast("dict[str, Any]", found)

    @property
    def digest(self) -> Digest:
        return canonical.digest(self)

    @property
    def norm(self) -> float:
        return self.norm_micro / MICRO

    @property
    def quorum(self) -> int:
        """So many vaults make a round: a third may drop out."""
        return len(self.members) - len(self.members) // 3

    @property
    def shares(self) -> int:
        """In how many shares the noise comes."""
        return self.quorum if self.masked and self.together else 1


class Round(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="training.1"):
    """The request of one order: this run's round at one vault, signed by the requester.

    Attributes:
        model: the vault's subject, as every request has its model.
        number: counts the run's orders, from 0; one that failed is not asked again, another one is.
        action: the type of Flower's message.
        message: digest of its records, which a call brought.
        epsilon_micro: the most that the round may spend; its price has a part for it.
        signature: over `signing_digest`.
    """

    model: DigestBytes
    grant: DigestBytes
    run: DigestBytes
    number: Annotated[int, Meta(ge=0, lt=MOST_ROUNDS)]
    action: Annotated[str, Meta(pattern=r"\A(train|evaluate)(\.[A-Za-z_][A-Za-z0-9_]{0,60})?\Z")]
    group: Annotated[str, Meta(max_length=32)]
    message: DigestBytes
    epsilon_micro: Annotated[int, Meta(ge=0, le=2**53)]
    requester: AddressBytes
    signature: SignatureBytes

    @property
    def training(self) -> bool:
        return self.action.startswith("train")

    def canonical(self) -> bytes:
        return canonical.encode(self)

    @property
    def digest(self) -> Digest:
        """The order's name in the vault's log."""
        return canonical.digest(self)

    def signing_digest(self) -> Digest:
        return canonical.content_digest(
            b"clusterai training round" + canonical.encode(msgspec.structs.replace(self, signature=bytes(65)))
        )


def decode_round(raw: bytes) -> Round:
    """
    Raises:
        canonical.Malformed: a stranger's nonsense.
    """
    return canonical.decode(raw, Round)


class Done(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="training.done.1"):
    """The answer of an order.

    Attributes:
        order: digest of the `Round`.
        commitment: digest of a salt and the vector that this vault will put into the sum. It says nothing of the vector, and holds the vault to it.
        length: of the vector.
        metrics: names of the metrics in it, sorted; none with ε.
        clipped: the update was longer than the bound; never told with ε.
        epsilon_micro: spent by this round.
        use: the signed use, in canonical bytes.
    """

    order: DigestBytes
    commitment: DigestBytes
    length: Annotated[int, Meta(ge=1, le=2**24)]
    metrics: Annotated[tuple[Annotated[str, Meta(max_length=400)], ...], Meta(max_length=MOST_METRICS)]
    clipped: bool
    epsilon_micro: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    use: Annotated[bytes, Meta(max_length=1024)]

    def canonical(self) -> bytes:
        return canonical.encode(self)


class Sorry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="training.sorry.1"):
    """Instead: nothing was done, and nothing is charged. Orders aren't sealed, so `detail` says nothing of rows."""

    order: DigestBytes
    code: Annotated[str, Meta(max_length=40)]
    detail: Annotated[str, Meta(max_length=600)]

    def canonical(self) -> bytes:
        return canonical.encode(self)


_DONE: Any = Done | Sorry


def decode_done(raw: bytes) -> Done | Sorry:
    """
    Raises:
        canonical.Malformed.
    """
    return canonical.decode(raw, _DONE)


class Hello(Call, frozen=True):
    """Who are you?"""


class Hi(Call, frozen=True):
    """
    Attributes:
        member: the address of the key that signs in secure aggregation.
        flower: the version of Flower that apps find here.
        membership: by which the other vaults know that `member` is this one's.
    """

    member: AddressBytes
    dataset: DigestBytes
    snapshot: DigestBytes
    flower: Text
    membership: Membership


class Begin(Call, frozen=True):
    """
    Attributes:
        memberships: of all the run's members, in their order; what `Hi` of each brought. Masked runs need them.
    """

    run: Run
    grant: DigestBytes
    bundle: Annotated[bytes, Meta(max_length=MOST_BUNDLE_BYTES)]
    memberships: Annotated[tuple[Membership, ...], Meta(max_length=MOST_VAULTS)] = ()


class Put(Call, frozen=True):
    run: DigestBytes
    message: Annotated[bytes, Meta(max_length=MOST_MESSAGE_BYTES)]


class Masking(Call, frozen=True):
    """One frame of secure aggregation for a round; the answer is the member's frame."""

    run: DigestBytes
    number: int
    frame: bytes


class Plain(Call, frozen=True):
    run: DigestBytes
    number: int


class Why(Call, frozen=True):
    """Why did the app fail? Answered without ε only: then its owner lets the app's sums out, and its last words too."""

    run: DigestBytes
    number: int


class Words(Call, frozen=True):
    text: Annotated[str, Meta(max_length=2_000)]


class Vector(Call, frozen=True):
    """
    Attributes:
        salt: with the vector's bytes it makes the commitment.
    """

    salt: DigestBytes
    values: bytes


class End(Call, frozen=True):
    run: DigestBytes


class Good(Call, frozen=True):
    """It was done."""


Asked = Hello | Begin | Put | Masking | Plain | Why | End
Answered = Hi | Good | No | Vector | Frame | Words
_ASKED: Any = Asked
_ANSWERED: Any = Answered
"""`type[T]` can't say a union."""


def decode_call(raw: bytes) -> Asked:
    """
    Raises:
        canonical.Malformed.
    """
    return canonical.decode(raw, _ASKED, MOST_MESSAGE_BYTES + 4096)


def decode_reply(raw: bytes) -> Answered:
    """
    Raises:
        canonical.Malformed.
    """
    return canonical.decode(raw, _ANSWERED, MOST_MESSAGE_BYTES + 4096)


def commitment(salt: bytes, vector: bytes) -> Digest:
    return canonical.content_digest(b"clusterai training vector" + salt + vector)
