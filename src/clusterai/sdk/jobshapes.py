"""What a gateway is asked and tells about jobs, as structs. The server side answers exactly these shapes.

Digests are `0x` and 64 hex digits of a BLAKE3; a folder is the digest of its listing (`work.batch.core.tree.Tree`, canonical
bytes), which is content like any other. Amounts are in the token's smallest unit. Nothing but data, so that pure code may
speak of it.
"""

from base64 import b64decode, b64encode
from typing import Any, Literal

import msgspec

MOST_CONTENT_BYTES = 1 << 30
"""One file; more is asked of the gateway in vain (413)."""

TaskState = Literal["waiting", "placed", "running", "committed", "verified", "closed"]
"""`waiting` for a provider; `placed`: the lease is open on chain; `running`: its provider accepted; `committed`: the work is done and
its digests are on chain; `verified`: drawn or not, nothing was found within the window; `closed`: see the reason."""

CloseReason = Literal[
    "COMPLETED",
    "CANCELLED_BEFORE_START",
    "CANCELLED",
    "NOT_ACCEPTED",
    "DEADLINE_MISSED",
    "GAVE_UP",
    "OUTPUT_DIFFERS",
    "FRAUD",
    "WITHHELD",
    "PROVIDER_CONVICTED",
]
"""The names of `protocol.leases.CloseReason`."""

RefusalCode = Literal[
    "class",
    "image",
    "network",
    "cpu",
    "memory",
    "disk",
    "gpu",
    "time",
    "processes",
    "segments",
    "price",
    "hourly",
    "deadline",
    "stake",
    "barred",
    "full",
    "away",
    "replicas",
    "nobody",
]
"""Why a provider, or the network, can't take a job: a closed list."""


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    numbers: dict[str, str] = {}
    """of each number whether it is measured, claimed or settled"""


# --- what is asked ---


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A job and what is wanted of the market.

    Attributes:
        job: base64 of the canonical bytes of a `work.batch.JobArray`.
        max_price_wei: for one lease, the audit's fee included.
        deadline_s: from now.
    """

    job: str
    max_price_wei: int | None = None
    max_hourly_wei: int | None = None
    deadline_s: int | None = None
    replicas: int = 1
    retries: int = 0
    retry_until_placed: bool = False


# --- the plan ---


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    code: RefusalCode
    why: str


class Candidate(_Told, frozen=True, kw_only=True):
    """A provider that could run it.

    Attributes:
        total_wei: the most that one lease costs without the audit's fee.
        audit_rate_ppm: how likely its result is drawn.
        cheat_gain_wei: what not doing the work would be worth to it on average; negative where that loses.
    """

    provider: str
    hourly_wei: int
    total_wei: int
    audit_fee_wei: int
    eta_s: int
    queue: int
    stake_wei: int
    valid_in_a_row: int
    audit_rate_ppm: int
    cheat_gain_wei: int


class Refusing(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that won't, and every reason."""

    provider: str
    reasons: list[Refusal]


class Relaxation(msgspec.Struct, frozen=True, kw_only=True):
    """What to change so that it could be placed; the cheapest such change."""

    provider: str
    changes: list[str]
    total_wei: int


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """How the result will be verified.

    Attributes:
        reexecuted_ppm: share of the work that audits repeat, on average.
        promise: in a sentence; and what is not promised.
    """

    check: str
    segments: int
    audit_rate_ppm: int
    reexecuted_ppm: int
    replicas: int
    promise: str
    limits: list[str]


class Plan(_Told, frozen=True, kw_only=True):
    """What would happen.

    Attributes:
        job: digest of the job array; `tasks` of its tasks, each `replicas` times, are `leases` leases.
        candidates: cheapest first; the first `replicas` of them get the first task.
        hourly_wei, total_wei: of all leases, at the chosen candidates; 0 where it can't be placed.
        reasons: why it can't be placed; empty where it can.
    """

    job: str
    name: str
    tasks: int
    replicas: int
    leases: int
    placed: bool
    hourly_wei: int
    total_wei: int
    audit_fee_wei: int
    eta_s: int
    verification: Verification
    candidates: list[Candidate] = []
    refused: list[Refusing] = []
    reasons: list[Refusal] = []
    relaxation: Relaxation | None = None


# --- the job ---


class Task(_Told, frozen=True, kw_only=True):
    """One lease's worth of a job.

    Attributes:
        spec: the work digest J.
        lease: the lease's id; empty while there is none.
        segment: finished segments of `segments`.
        output: digest of the listing of the outputs; empty until they are there.
        reason: why the lease was closed; `why` says it in words, the program's exit code included.
    """

    task: int
    replica: int
    spec: str
    state: TaskState
    lease: str = ""
    provider: str = ""
    attempt: int = 0
    segment: int = 0
    segments: int = 1
    units: int = 0
    total_wei: int = 0
    audit_fee_wei: int = 0
    paid_wei: int = 0
    refunded_wei: int = 0
    output: str = ""
    exit_code: int | None = None
    reason: CloseReason | None = None
    why: str = ""


class Job(_Told, frozen=True, kw_only=True):
    """`state`: the least advanced of its tasks'; `closed` when all are."""

    id: str
    name: str
    check: str
    state: TaskState
    created_s: int
    tasks: list[Task]
    held_wei: int = 0
    deadline_s: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more: every result is there, or won't come."""
        return all(task.state in ("committed", "verified", "closed") for task in self.tasks)


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """`next` is the `page` to ask for those behind these; empty behind the last."""

    jobs: list[Job]
    next: str = ""


class JobEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What just happened to a job. `end` is the last: nothing runs any more.

    Attributes:
        text: of a `log`, base64 of its bytes; else in words.
    """

    seq: int
    at_s: int
    kind: Literal["state", "progress", "log", "end"]
    task: int = 0
    replica: int = 0
    state: TaskState | None = None
    segment: int = 0
    segments: int = 0
    units: int = 0
    stream: Literal["stdout", "stderr", ""] = ""
    text: str = ""

    def log(self) -> bytes:
        return b64decode(self.text) if self.kind == "log" else b""


# --- the audit's story ---

Deed = Literal[
    "opened",
    "accepted",
    "committed",
    "beacon",
    "drawn",
    "auditor_drawn",
    "auditor_committed",
    "segment_opened",
    "auditor_revealed",
    "matched",
    "mismatched",
    "auditor_silent",
    "withheld",
    "demanded",
    "undelivered",
    "demand_ended",
    "disputed",
    "trace",
    "selected",
    "referees_drawn",
    "referee_committed",
    "referees_sealed",
    "referee_revealed",
    "dispute_ended",
    "slashed",
    "closed",
]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that stands on chain about a lease."""

    what: Deed
    at_s: int
    block: int
    transaction: str = ""
    by: str = ""
    detail: dict[str, Any] = {}


class LeaseAudit(_Told, frozen=True, kw_only=True):
    """The whole story of one lease, in the order of the chain.

    Attributes:
        audited: None until the beacon is known.
        segment: the drawn one, from 1; 0 where none was.
        verdict: `pending`, `not drawn`, `matched`, `fraud`, `withheld`, `unverified`, `nothing claimed` (it was closed before).
    """

    lease: str
    task: int
    replica: int
    provider: str
    check: str
    segments: int
    verdict: str
    root: str = ""
    output: str = ""
    beacon: str = ""
    rate_ppm: int = 0
    audited: bool | None = None
    segment: int = 0
    reason: CloseReason | None = None
    steps: list[Step] = []


class JobAudit(msgspec.Struct, frozen=True, kw_only=True):
    job: str
    leases: list[LeaseAudit]


def packed(job: bytes) -> str:
    """Canonical bytes as `JobRequest.job` carries them."""
    return b64encode(job).decode()


def unpacked(job: str) -> bytes:
    """
    Raises:
        ValueError: not base64.
    """
    return b64decode(job, validate=True)
