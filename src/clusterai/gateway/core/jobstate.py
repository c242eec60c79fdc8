"""What the desk for jobs knows: the events it hears, what it asks for, what is durable, and each job with its leases.

`jobdesk.JobDesk` decides; `jobplacing.Placing` knows who could take a lease.
"""

from typing import Literal

import msgspec

from clusterai.audit.core.segments import RateRules
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from clusterai.protocol.jobs import Bait
from clusterai.protocol.leases import CloseReason, Terms
from clusterai.sdk.jobshapes import Plan, TaskState
from clusterai.work.batch.core.plan import RULES
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.spec import JobArray


class DeskTerms(msgspec.Struct, frozen=True):
    """Who this gateway is. `me` is its owner, which the leases name as requester; the hot key pays.

    Attributes:
        leases: domain of the contract, which makes a lease's id.
        at: the contract's address, which is allowed to take what leases cost.
        window_s: of the chain; a lease is closed when it is over.
        least_stake_wei: a verified job goes to nobody with less.
        deliveries: the contract that takes the bond of a demand; without it nothing is demanded.
        rules: by which the chain decides how often to audit, until it says otherwise.
        keep_s, most_ended: of jobs that ended, see `jobretention`.
        bait_ppm: beside so many of a million verifiable leases bait is planted (`jobbait`), at most `bait_spread_s` behind the commitment; more where
            an auditor has too little at stake for that to deter it, and none at all for 0.
        bait_key: secret; it decides beside which, and what.
        bond_ppm: an auditor's bond, of the provider's stake, until the chain says otherwise.
    """

    me: Address
    leases: Domain
    at: Address
    window_s: int
    least_stake_wei: int = 0
    rules: RateRules = RULES
    deliveries: Address = ZERO_ADDRESS
    keep_s: int = 30 * 86_400
    most_ended: int = 10_000
    bait_ppm: int = 0
    bait_spread_s: int = 3_600
    bait_key: bytes = b""
    bond_ppm: int = 100_000


Verdict = Literal["here", "missing", "differs", "unable"]


# --- events ---


class Ask(msgspec.Struct, frozen=True):
    """Somebody asks for a job. `nonce` is fresh; `name` comes back in `Answered`."""

    name: str
    account: Digest
    array: bytes
    wishes: Wishes
    nonce: Digest


class Cancel(msgspec.Struct, frozen=True):
    job: Digest


class Fetched(msgspec.Struct, frozen=True):
    """The output of a lease lies here, whole, and is the last state's.

    `verdict`: `here`; `missing`: it can't be had from there; `differs`: the last state doesn't give what was committed to; `unable`:
    this machine can't take it, which says nothing of the provider. `why`: in words.
    """

    lease: Digest
    verdict: Verdict = "here"
    why: str = ""


# --- effects ---


class Answer(msgspec.Struct, frozen=True):
    """To who submitted: the job's id, or why not, with the plan that shows it."""

    name: str
    job: Digest | None
    refusal: str
    plan: Plan | None


class Fetch(msgspec.Struct, frozen=True):
    """Get the output from whoever has it, piece by piece, and hold it to the last state: `Fetched` comes back."""

    lease: Digest
    source: Address
    output: Digest
    last: Digest


class Note(msgspec.Struct, frozen=True):
    """For who follows the job."""

    job: Digest
    kind: Literal["state", "progress", "log", "end"]
    task: int = 0
    replica: int = 0
    state: TaskState | None = None
    segment: int = 0
    segments: int = 0
    units: int = 0
    stream: Literal["stdout", "stderr", ""] = ""
    data: bytes = b""
    start: int = 0
    total: int = 0
    lease: Digest = ZERO_DIGEST
    """of a log: its stream begins anew with another lease"""
    text: str = ""
    """in words, what is wrong"""


class Forgotten(msgspec.Struct, frozen=True):
    """A job, and with it its leases, is no longer known: what was kept for it may go."""

    job: Digest
    leases: tuple[Digest, ...]


# --- records ---


class Accepted(msgspec.Struct, frozen=True, tag=True):
    """A job was taken on."""

    job: bytes
    account: bytes
    array: bytes
    wishes: Wishes
    at_s: int
    held_wei: int


class Held(msgspec.Struct, frozen=True, tag=True):
    job: bytes


class Placed(msgspec.Struct, frozen=True, tag=True):
    job: bytes
    slot: int
    terms: Terms


class Came(msgspec.Struct, frozen=True, tag=True):
    """A provider says that it is done (or, with an empty output, that it gave up), and why."""

    lease: bytes
    output: bytes
    exit_code: int
    detail: str
    refused: bool = False
    """it never took it; of any other, the chain says whether it was accepted, perhaps a moment later than its provider does"""


class Here(msgspec.Struct, frozen=True, tag=True):
    """The output lies here."""

    lease: bytes


class Closed(msgspec.Struct, frozen=True, tag=True):
    """The chain closed a lease, and the account was charged for it."""

    lease: bytes
    reason: int
    paid_wei: int
    refunded_wei: int


class Paid(msgspec.Struct, frozen=True, tag=True):
    """The account's tab bears what a lease cost."""

    lease: bytes


class Cancelled(msgspec.Struct, frozen=True, tag=True):
    job: bytes


class GaveUp(msgspec.Struct, frozen=True, tag=True):
    """A slot will get no further lease."""

    job: bytes
    slot: int
    why: str


class Over(msgspec.Struct, frozen=True, tag=True):
    """Nothing more happens to a job."""

    job: bytes
    at_s: int


class Pruned(msgspec.Struct, frozen=True, tag=True):
    """A job is forgotten."""

    job: bytes


class Planted(msgspec.Struct, frozen=True, tag=True):
    """Bait stands beside a lease, under terms of its own."""

    beside: bytes
    terms: Terms
    spec: bytes
    bait: Bait


class Uprooted(msgspec.Struct, frozen=True, tag=True):
    """The chain closed bait."""

    lease: bytes
    reason: int
    paid_wei: int
    refunded_wei: int


DeskRecord = (
    Accepted
    | Held
    | Placed
    | Came
    | Here
    | Closed
    | Paid
    | Cancelled
    | GaveUp
    | Over
    | Pruned
    | Planted
    | Uprooted
)


# --- state ---


class Slot(msgspec.Struct):
    """One replica of one task: the lease that it has now, and those before it."""

    task: int
    replica: int
    terms: Terms | None = None
    lease: Digest | None = None
    attempt: int = 0
    failures: int = 0
    refused_by: list[Address] = msgspec.field(default_factory=list)
    unasked: bool = False
    """placed by this very process, which hasn't asked the chain to open it"""
    opened: bool = False
    accepted: bool = False
    committed: bool = False
    verified: bool = False
    segment: int = 0
    units: int = 0
    came: Came | None = None
    here: bool = False
    closed: Closed | None = None
    over: str | None = None
    """why it gets no further lease; None while it may"""
    start_s: float = 0.0
    output: Digest = ZERO_DIGEST
    last: Digest = ZERO_DIGEST
    """what the chain says was committed to: the outputs' listing, and h_T"""
    accepted_s: int = 0
    committed_s: int = 0
    closed_s: int = 0
    demanded: bool = False
    fetch_s: float | None = None
    tries: int = 0
    verdict: Verdict | None = None
    """what came of the last fetch"""

    @property
    def state(self) -> TaskState:
        if self.over is not None or (self.closed is not None and self.closed.reason == CloseReason.COMPLETED):
            return "closed"
        if self.lease is None:
            return "waiting"
        if self.verified:
            return "verified"
        if self.committed:
            return "committed"
        return "running" if self.accepted else "placed"


class Job(msgspec.Struct):
    id: Digest
    account: Digest
    array: JobArray
    raw: bytes
    wishes: Wishes
    at_s: int
    held_wei: int
    slots: list[Slot]
    reserved: bool = False
    cancelled: bool = False
    ended: bool = False
    """said so in this process, to its tab above all"""
    ended_s: int | None = None
    history: list[DeskRecord] = msgspec.field(default_factory=list)


FAILED = frozenset(
    (
        CloseReason.DEADLINE_MISSED,
        CloseReason.GAVE_UP,
        CloseReason.OUTPUT_DIFFERS,
        CloseReason.FRAUD,
        CloseReason.WITHHELD,
        CloseReason.PROVIDER_CONVICTED,
    )
)
"""A provider's failure, which `retries` counts. Not accepting costs nobody anything, so it doesn't count."""
