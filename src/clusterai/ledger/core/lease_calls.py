"""What participants ask of Panel, Leases, Audits, Deliveries and Disputes; the same rules as in `calls`, which names all of these too."""

import msgspec

from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.leases import Terms


class _Call(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


class OpenLease(_Call, frozen=True):
    """Leases: by the requester's owner or hot key, which approved compensation and audit fee and gets back what is left."""

    terms: Terms


class AcceptLease(_Call, frozen=True):
    """Leases: by the provider, at `start_by_s` at the latest."""

    lease: Digest


class CommitLease(_Call, frozen=True):
    """Leases: by the provider, at the deadline at the latest. `segments` and `units` may be fewer than agreed, `amount` less
    than `protocol.leases.earned_wei`; `proof` shows `last`, the last state, with `units` at index `segments` of `root`."""

    lease: Digest
    root: Digest
    segments: int
    output: Digest
    units: int
    amount: int
    last: Digest
    proof: tuple[Digest, ...]


class CancelLease(_Call, frozen=True):
    """Leases: by the requester; free before it is accepted, then a tenth and the share of the time that passed.

    even_accepted: else one that was accepted meanwhile goes on.
    """

    lease: Digest
    even_accepted: bool = True


class GiveUpLease(_Call, frozen=True):
    """Leases: by the provider, before it committed; everything goes back."""

    lease: Digest


class CloseLease(_Call, frozen=True):
    """Leases: by anyone, what time or a conviction has decided."""

    lease: Digest


class ReleaseVested(_Call, frozen=True):
    """Leases: by anyone; a newcomer's vested pay, once its stake suffices; burnt if it was convicted."""

    provider: Address


class Enlist(_Call, frozen=True):
    """Panel: by a validator: take a seat on the panel of auditors, or weigh anew."""


class Weigh(_Call, frozen=True):
    """Panel: by anyone: a seat's weight follows its owner's stake."""

    auditor: Address


class DrawLease(_Call, frozen=True):
    """Audits: by anyone, once the commitment's beacon is recorded."""

    lease: Digest


class CommitAudit(_Call, frozen=True):
    """Audits: by the drawn auditor, which approved the bond; `sealed` is `protocol.leases.sealed_result`."""

    lease: Digest
    sealed: Digest


class Shown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A state of a commitment with the units up to there."""

    state: Digest
    units: int
    proof: tuple[Digest, ...]


class OpenSegment(_Call, frozen=True):
    """Audits: by the provider, once an auditor committed: both ends of the drawn segment, and of `other`, in which the
    point lies that is drawn among the units, unless it is the same."""

    lease: Digest
    shown: tuple[Shown, ...]
    other: int


class RevealAudit(_Call, frozen=True):
    """Audits: by the drawn auditor, once the provider opened the segment."""

    lease: Digest
    result: Digest
    salt: Digest


class ReportWithheld(_Call, frozen=True):
    """Audits: by the drawn auditor, and after it by everyone on the panel: the provider doesn't serve the start state."""

    lease: Digest


class ExpireAudit(_Call, frozen=True):
    """Audits: by anyone, what a clock has decided: another auditor, a withheld opening, an accusation dropped."""

    lease: Digest


class SpringTrap(_Call, frozen=True):
    """Audits: by who planted the lease: the secret shows that nobody's work can have given what the provider showed."""

    terms: Terms
    secret: Digest


class DemandDelivery(_Call, frozen=True):
    """Deliveries: by the requester, which approved the bond, in the window after the commitment: the outputs can't be had, or
    aren't those of the last state."""

    lease: Digest


class ReportUndelivered(_Call, frozen=True):
    """Deliveries: by everyone on the panel: neither could I have them, or I saw that they are others."""

    lease: Digest


class ExpireDemand(_Call, frozen=True):
    """Deliveries: by anyone, what a clock or the closing of the lease has decided."""

    lease: Digest


class StartDispute(_Call, frozen=True):
    """Disputes: by an auditor whose result differed, while the audit is contested; the caller approved the bond."""

    lease: Digest


class AssertTrace(_Call, frozen=True):
    """Disputes: by the provider: its states at the inner points of the range, see `protocol.bisection`."""

    lease: Digest
    inner: tuple[Digest, ...]


class SelectRange(_Call, frozen=True):
    """Disputes: by the accuser: the first part at whose end it has another state, `denied`; `inner` as it was asserted."""

    lease: Digest
    part: int
    denied: Digest
    inner: tuple[Digest, ...]


class CommitReferee(_Call, frozen=True):
    """Disputes: by a referee; `sealed` is `protocol.leases.sealed_result`."""

    lease: Digest
    sealed: Digest


class RevealReferee(_Call, frozen=True):
    """Disputes: by a referee: the state in which the last step ends, or zero if nothing was served to run."""

    lease: Digest
    result: Digest
    salt: Digest


class ExpireDispute(_Call, frozen=True):
    """Disputes: by anyone, what a clock has decided."""

    lease: Digest


LeasesCall = OpenLease | AcceptLease | CommitLease | CancelLease | GiveUpLease | CloseLease | ReleaseVested
PanelCall = Enlist | Weigh
AuditsCall = DrawLease | CommitAudit | OpenSegment | RevealAudit | ReportWithheld | ExpireAudit | SpringTrap
DeliveriesCall = DemandDelivery | ReportUndelivered | ExpireDemand
DisputesCall = StartDispute | AssertTrace | SelectRange | CommitReferee | RevealReferee | ExpireDispute
