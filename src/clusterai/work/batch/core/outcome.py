"""What came of performing a job, whichever way it was performed."""

from enum import StrEnum

import msgspec

from clusterai.audit.core.segments import Commitment
from clusterai.protocol.ids import Digest
from clusterai.work.batch.core.tree import Tree


class Ended(StrEnum):
    """Why a job ended: the whole list."""

    FINISHED = "finished"
    """exit code 0, and all outputs are there"""
    FAILED = "failed"
    """the program ended with another code; what it did until then is paid"""
    OUTPUTS_MISSING = "outputs_missing"
    """it finished without a file that the spec names"""
    OUTPUT_DIFFERS = "output_differs"
    """it finished with other outputs than the spec expects"""
    NOT_DONE = "not_done"
    """it wasn't done after all its segments"""
    LIMIT = "limit"
    """it met a limit: memory, time, disk, processes, output, fuel"""
    CANCELLED = "cancelled"
    NOT_DETERMINISTIC = "not_deterministic"
    """a second run of a segment gave another state: whoever commits to that can be accused, so nobody should"""
    REFUSED = "refused"
    """it was never started, or can't be: `why` says what to change"""


class Segment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One segment that was done: the state after it, and its units."""

    state: Digest
    units: int


class Performed(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was performed.

    Attributes:
        states: h_0 … h_T. Each is the content address of its own preimage in the store.
        units: what each segment metered.
        output: the listing of the outputs; it, and all content that it names, is in the store.
        steps: of a WASM module, how many it took; 0 for others.
    """

    ended: Ended
    states: tuple[Digest, ...]
    units: tuple[int, ...]
    output: Tree
    exit_code: int | None = None
    why: str = ""
    wall_ms: int = 0
    cpu_ms: int = 0
    steps: int = 0
    lost: tuple[str, ...] = ()
    """files that can't be kept: links, hidden ones, odd names"""
    resumed_at: int = 0
    """how many segments were already done by an earlier process"""

    @property
    def ok(self) -> bool:
        return self.ended is Ended.FINISHED

    @property
    def is_payable(self) -> bool:
        """Whether there is something to commit to."""
        return sum(self.units) > 0 and self.ended in (
            Ended.FINISHED,
            Ended.FAILED,
            Ended.OUTPUTS_MISSING,
            Ended.NOT_DONE,
            Ended.LIMIT,
        )

    def commitment(self) -> Commitment:
        """What goes on chain; `is_payable` holds."""
        return Commitment(self.states, self.units)
