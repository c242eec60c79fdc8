"""What Vaults tells; the same rules as in `events`, which names all of these too. `grant` is the licence token's id as a digest."""

import msgspec

from clusterai.ledger.core.vault_calls import DatasetTerms
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.vaults import Grant


class _Event(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class DatasetListed(_Event, frozen=True):
    """The first time, or again with a higher serial."""

    dataset: Digest
    owner: Address
    name: Digest
    terms: DatasetTerms


class AccessGranted(_Event, frozen=True):
    grant: Digest
    dataset: Digest
    requester: Address
    terms: Grant
    transferable: bool


class GrantEnded(_Event, frozen=True):
    """`reason` is a `protocol.vaults.Revoked`."""

    grant: Digest
    dataset: Digest
    reason: int


class LicenceMoved(_Event, frozen=True):
    """A transferable copy changed hands."""

    grant: Digest
    source: Address
    to: Address


class LogAnchored(_Event, frozen=True):
    """The dataset's anchor `number`, counted from 0."""

    dataset: Digest
    number: int
    root: Digest
    count: int
    spent_micro: int
    as_of_s: int


class BreachProven(_Event, frozen=True):
    """`kind` is a `protocol.vaults.Breach`. The dataset is frozen, its owner convicted (`Convicted` tells of the stake)."""

    dataset: Digest
    owner: Address
    kind: int
    evidence: Digest
    finder: Address


class CopyBought(_Event, frozen=True):
    sale: Digest
    dataset: Digest
    requester: Address
    request: Digest
    payer: Address
    price: int
    deliver_by_s: int


class CopyDelivered(_Event, frozen=True):
    """Paid when the window is over, unless the grant is revoked or its vault convicted before."""

    sale: Digest
    grant: Digest


class SaleClosed(_Event, frozen=True):
    sale: Digest
    paid: int
    refunded: int
