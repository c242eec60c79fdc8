"""What a process that runs WASM is asked, and what it answers: the two messages through a job's own volume."""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol.ids import Digest
from clusterai.sandbox.core.spec import Reason, Task

MAX_SEGMENTS = 65_536
MAX_REPORT_BYTES = 64 << 20
TASK, MODULE, PREIMAGE = "ask", "module", "preimage"
REPORT, FILES, STATES = "report", "files", "states"


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Its inputs lie beside it as `i0`, `i1`, … in the order of their names."""

    task: Task
    steps: Annotated[int, Meta(ge=0)] = 0
    """In a segment; 0 asks for no digests. With a preimage beside it: how many to run."""
    every: Annotated[int, Meta(ge=0)] = 0
    """With a preimage: a digest after this many."""
    points: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=64)] = ()
    """With a preimage: digests at so many units instead; the report's meter says what had been spent there."""
    burn: Annotated[int, Meta(ge=0)] = 0
    """With a preimage: the most fuel that these steps may take from there; a state that leads beyond it is none of this job. 0: what the task allows."""
    keep: bool = False
    """Leave the preimage of every digest."""
    begin: bool = False
    """Only the state before the first step."""
    for_ms: Annotated[int, Meta(ge=0)] = 0
    """End behind the segment in which so much time is over; it goes on from its state. 0: with the job."""
    kept_bytes: Annotated[int, Meta(ge=0)] = 0
    """The same when the kept preimages are so many bytes; 0: however many."""
    most: Annotated[int, Meta(ge=0)] = 0
    """The same behind so many segments; 0: however many."""


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    reason: Reason
    exit_code: Annotated[int, Meta(ge=0)] = 0
    why: Annotated[str, Meta(max_length=1000)] = ""
    fuel: Annotated[int, Meta(ge=0)] = 0
    memory_bytes: Annotated[int, Meta(ge=0)] = 0
    outputs: tuple[str, ...] = ()
    """Names; their contents lie in `files` as `f0`, `f1`, …"""
    digests: tuple[Annotated[Digest, Meta(min_length=32, max_length=32)], ...] = ()
    meter: tuple[int, ...] = ()
    ended: Reason | None = None
    """Of a re-run: how the job ended in it, if it did."""
    unfinished: bool = False
    """The job goes on from the last of the digests."""
