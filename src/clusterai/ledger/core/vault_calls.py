"""What owners of data, their buyers and accusers ask of Vaults; the same rules as in `calls`, which names all of these too."""

import msgspec

from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.vaults import Grant, Use


class _Call(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class DatasetTerms(msgspec.Struct, frozen=True, array_like=True):
    """What stands on chain of a listing.

    Attributes:
        noise_commit: digest of the noise key; never changes.
        serial: rises with each listing.
        budget_micro: ε that all grants together may spend, ever; never changes.
        price_wei: of a copy; zero: not for sale.
        royalty_bps: of a copy's resale (ERC-2981), at most 1000.
    """

    card: Digest
    snapshot: Digest
    policy: Digest
    noise_commit: Digest
    serial: int
    budget_micro: int
    price_wei: int = 0
    royalty_bps: int = 0


class ListDataset(_Call, frozen=True):
    """By a provider or its hot keys; `name` is `protocol.vaults.name_digest`, the id `dataset_id(owner, name)`."""

    name: Digest
    terms: DatasetTerms


class GrantAccess(_Call, frozen=True):
    """By the dataset's owner or its hot keys; only copies may be `transferable`. The id is `grant.struct()`."""

    grant: Grant
    transferable: bool = False


class EndGrant(_Call, frozen=True):
    """`reason` is a `protocol.vaults.Revoked`: by the owner's side; by the holder if it is ASKED; by anyone if it is EXPIRED and has."""

    grant: Digest
    reason: int


class AnchorLog(_Call, frozen=True):
    """By the dataset's owner or its hot keys: `count` uses, `as_of_s` at most the chain's time and at most a day ago. No use may be
    signed later for a time before `as_of_s`."""

    dataset: Digest
    root: Digest
    count: int
    spent_micro: int
    as_of_s: int


class BuyCopy(_Call, frozen=True):
    """By whoever pays, who approved the contract, for `requester`; the money comes back if nothing is delivered by `deliver_by_s`."""

    dataset: Digest
    request: Digest
    requester: Address
    most_wei: int
    deliver_by_s: int


class DeliverCopy(_Call, frozen=True):
    """By the dataset's owner or its hot keys: the grant for a copy that `payer` bought; it outlives the window."""

    payer: Address
    grant: Grant
    transferable: bool = False


class CloseSale(_Call, frozen=True):
    """By anyone, what time or a conviction has decided; by the vault before it delivered, which gives the money back."""

    sale: Digest


class Shown(msgspec.Struct, frozen=True, array_like=True):
    """A use, and its place under the dataset's anchor of that number."""

    use: Use
    anchor: int
    proof: tuple[Digest, ...]


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Any leaf under an anchor."""

    anchor: int
    value: Digest
    proof: tuple[Digest, ...]


class ProveSpending(_Call, frozen=True):
    """By anyone: an anchored use spent more than its grant or the budget allows, or contradicts itself or the anchor."""

    shown: Shown


class ProveSums(_Call, frozen=True):
    """By anyone: between two anchored uses the sums rose by less than the later one spent."""

    first: Shown
    second: Shown


class ProveEquivocation(_Call, frozen=True):
    """By anyone: two signed uses with one index."""

    first: Use
    first_signature: bytes
    second: Use
    second_signature: bytes


class ProveOmission(_Call, frozen=True):
    """By anyone: a signed use isn't in an anchored log. `piece` shows what stands at its index; if the log ends before it, value and proof
    are ignored."""

    use: Use
    signature: bytes
    piece: Piece


class ProveRewriting(_Call, frozen=True):
    """By anyone: two anchors have different leaves at one index."""

    dataset: Digest
    index: int
    first: Piece
    second: Piece


VaultsCall = (
    ListDataset
    | GrantAccess
    | EndGrant
    | AnchorLog
    | BuyCopy
    | DeliverCopy
    | CloseSale
    | ProveSpending
    | ProveSums
    | ProveEquivocation
    | ProveOmission
    | ProveRewriting
)
