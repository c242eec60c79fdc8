"""What Rewards tells; the same rules as in `events`, which names all of these too. `id` is the pot's."""

import msgspec

from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.pots import Pot


class _Event(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class PotOpened(_Event, frozen=True):
    id: Digest
    payer: Address
    evaluator: Address
    pot: Pot


class PotJoined(_Event, frozen=True):
    """`place` counts from 1; of rows that two have, the earlier one's earn. The beacon's `round` breaks ties, that of the last to join."""

    id: Digest
    participant: Address
    rows: Digest
    round: int
    place: int


class PotScored(_Event, frozen=True):
    """Whoever comes to other scores contests these until `contest_by_s`."""

    id: Digest
    digest: Digest
    evidence: Digest
    contest_by_s: int
    scores: tuple[int, ...]


class PotContested(_Event, frozen=True):
    """The panel votes until `vote_by_s`."""

    id: Digest
    contester: Address
    vote_by_s: int


class PotVoted(_Event, frozen=True):
    """`weight` of `total` have said so now; two thirds decide."""

    id: Digest
    member: Address
    digest: Digest
    weight: int
    total: int


class PotDecided(_Event, frozen=True):
    id: Digest
    digest: Digest


class ShareEarned(_Event, frozen=True):
    id: Digest
    participant: Address
    amount: int


class ReferralEarned(_Event, frozen=True):
    """Out of the participant's share."""

    id: Digest
    referrer: Address
    participant: Address
    amount: int


class PotClosed(_Event, frozen=True):
    id: Digest
    earned: int
    refunded: int


class OwedTaken(_Event, frozen=True):
    who: Address
    amount: int
