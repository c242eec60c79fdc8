"""What Panel, Leases, Audits, Deliveries and Disputes tell; the same rules as in `events`, which names all of these too. `lease` is the id."""

import msgspec

from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.leases import Terms


class _Event(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class LeaseOpened(_Event, frozen=True):
    lease: Digest
    requester: Address
    provider: Address
    terms: Terms


class LeaseAccepted(_Event, frozen=True):
    lease: Digest


class LeaseCommitted(_Event, frozen=True):
    """The beacon numbered `round` draws; it is not recorded yet. `last` is the state behind the last segment."""

    lease: Digest
    root: Digest
    segments: int
    output: Digest
    units: int
    amount: int
    round: int
    last: Digest


class LeaseClosed(_Event, frozen=True):
    """`reason` is a `protocol.leases.CloseReason`; `paid` includes what vests; the audit fee is in neither if paid."""

    lease: Digest
    reason: int
    paid: int
    refunded: int


class PayVested(_Event, frozen=True):
    """A tenth of a newcomer's pay stays until its stake is fifty times the price."""

    provider: Address
    lease: Digest
    amount: int


class VestedReleased(_Event, frozen=True):
    provider: Address
    amount: int
    burned: bool


class Enlisted(_Event, frozen=True):
    """From the next second on, `auditor` weighs so much in draws for leases that are committed then."""

    seat: int
    auditor: Address
    weight: int


class AuditParameters(msgspec.Struct, frozen=True, array_like=True):
    """Shares in millionths, clocks in seconds; `rules.AuditRules` says what each is."""

    saving_ppm: int
    sensitivity_ppm: int
    corrupt_ppm: int
    margin_ppm: int
    commit_s: int
    open_s: int
    reveal_s: int
    dispute_s: int
    bond_wei: int
    bond_ppm: int


class AuditParametersSet(_Event, frozen=True):
    """For commitments made from now on; the first time at deployment."""

    parameters: AuditParameters


class LeaseDrawn(_Event, frozen=True):
    lease: Digest
    seed: Digest
    audited: bool
    segment: int


class AuditorDrawn(_Event, frozen=True):
    """`reveal_by_s` is the latest that the reveal can end; it is due sooner if the others are sooner."""

    lease: Digest
    attempt: int
    auditor: Address
    commit_by_s: int
    reveal_by_s: int


class AuditCommitted(_Event, frozen=True):
    """Next: the provider opens the segment by `open_by_s`, or, where it did before, the auditor reveals by then."""

    lease: Digest
    auditor: Address
    sealed: Digest
    open_by_s: int


class SegmentShown(_Event, frozen=True):
    """Next: the auditor reveals by `reveal_by_s`. Meters count from the job's beginning."""

    lease: Digest
    segment: int
    before: Digest
    after: Digest
    units_before: int
    units_after: int
    reveal_by_s: int


class AuditRevealed(_Event, frozen=True):
    lease: Digest
    auditor: Address
    result: Digest
    matches: bool


class AuditMatched(_Event, frozen=True):
    lease: Digest
    auditor: Address


class AuditorSilent(_Event, frozen=True):
    lease: Digest
    auditor: Address


class WithheldReported(_Event, frozen=True):
    """`weight` of `total` have said so now; two thirds convict. The rest of the panel may report until `report_by_s`."""

    lease: Digest
    auditor: Address
    weight: int
    total: int
    report_by_s: int


class AuditContested(_Event, frozen=True):
    """An auditor found another result and hasn't been refuted: it may start a dispute until `dispute_by_s`."""

    lease: Digest
    accuser: Address
    dispute_by_s: int


class AuditResolved(_Event, frozen=True):
    """The commitment stands; the lease can be closed after its window and `rest_until_s`."""

    lease: Digest
    rest_until_s: int


class TrapSprung(_Event, frozen=True):
    lease: Digest
    lazy: Address
    """zero where nobody was caught"""


class DeliveryDemanded(_Event, frozen=True):
    """The requester wasn't served what the last state gives. Next: the panel asks, and reports until `report_by_s`."""

    lease: Digest
    requester: Address
    provider: Address
    report_by_s: int


class UndeliveredReported(_Event, frozen=True):
    """`weight` of `total` have said so now; two thirds convict."""

    lease: Digest
    member: Address
    weight: int
    total: int


class DemandEnded(_Event, frozen=True):
    """`outcome` is a `protocol.leases.DemandOutcome`."""

    lease: Digest
    outcome: int


class DisputeOpened(_Event, frozen=True):
    """`steps` steps lead from `start` to the provider's `claimed` or the accuser's `denied`. Next: the provider asserts by
    `assert_by_s`, or with a single step, referees are drawn at once."""

    lease: Digest
    accuser: Address
    provider: Address
    steps: int
    start: Digest
    claimed: Digest
    denied: Digest
    assert_by_s: int


class TraceAsserted(_Event, frozen=True):
    """Next: the accuser selects by `select_by_s`."""

    lease: Digest
    inner: tuple[Digest, ...]
    select_by_s: int


class RangeSelected(_Event, frozen=True):
    """Next: the provider asserts by `assert_by_s`, or with a single step, referees are drawn at once."""

    lease: Digest
    low: int
    high: int
    start: Digest
    claimed: Digest
    denied: Digest
    assert_by_s: int


class RefereesDrawn(_Event, frozen=True):
    """Each seat's referee, so that one may stand there twice; nobody where the whole panel judges, by stake."""

    lease: Digest
    level: int
    referees: tuple[Address, ...]
    total: int
    seal_by_s: int


class RefereeCommitted(_Event, frozen=True):
    lease: Digest
    level: int
    referee: Address
    sealed: Digest


class RefereesSealed(_Event, frozen=True):
    """Next: who committed reveals by `reveal_by_s`."""

    lease: Digest
    level: int
    reveal_by_s: int


class RefereeRevealed(_Event, frozen=True):
    lease: Digest
    level: int
    referee: Address
    result: Digest


class DisputeEnded(_Event, frozen=True):
    """`reason` is a `protocol.leases.DisputeReason`; nobody wins where the lease was closed meanwhile."""

    lease: Digest
    winner: Address
    reason: int
