"""What participants ask of Panel, Leases and Audits; the same rules as in `calls`, which names all of these too."""

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
    """Leases: by the provider, at the deadline at the latest. `segments` may be fewer than agreed, `amount` less."""

    lease: Digest
    root: Digest
    segments: int
    output: Digest
    units: int
    amount: int


class CancelLease(_Call, frozen=True):
    """Leases: by the requester; free before it is accepted, then a tenth and the share of the time that passed."""

    lease: Digest


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


class OpenSegment(_Call, frozen=True):
    """Audits: by the provider, once an auditor committed: the drawn segment's states and meters, with their proofs."""

    lease: Digest
    before: Digest
    units_before: int
    after: Digest
    units_after: int
    proof_before: tuple[Digest, ...]
    proof_after: tuple[Digest, ...]


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


LeasesCall = OpenLease | AcceptLease | CommitLease | CancelLease | GiveUpLease | CloseLease | ReleaseVested
PanelCall = Enlist | Weigh
AuditsCall = DrawLease | CommitAudit | OpenSegment | RevealAudit | ReportWithheld | ExpireAudit | SpringTrap
