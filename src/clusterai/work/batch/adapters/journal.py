"""What of a job is done, in its store: a line for each segment, so that a killed node goes on from its last checkpoint."""

import msgspec

from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore
from clusterai.sandbox.adapters.growing import Appended
from clusterai.work.batch.core.outcome import Segment


class Line(msgspec.Struct, array_like=True, frozen=True):
    """A segment, and how much of the job's log and of its `stdout` was kept when it was done."""

    state: bytes
    units: int
    logged: int = 0
    printed: int = 0

    @property
    def segment(self) -> Segment:
        return Segment(Digest(self.state), self.units)


class SegmentLog:
    """One list per job. A torn last line is a segment that wasn't done."""

    def __init__(self, store: BlobStore, job: Digest) -> None:
        self._store = store
        self._list = Appended(store, f"segments {job.hex()}")

    def read(self) -> list[Line]:
        """The segments whose states are still there, state 0 (with no units) first; empty where nothing was begun."""
        found: list[Line] = []
        for raw in self._list.records():
            try:
                line = msgspec.json.decode(raw, type=Line)
            except msgspec.MsgspecError:
                break
            if len(line.state) != 32 or Digest(line.state) not in self._store:
                break
            found.append(line)
        self._list.cut(len(found))
        return found

    def begin(self) -> None:
        """Start over."""
        self._list.cut(0)

    def add(self, segment: Segment, logged: int = 0, printed: int = 0) -> None:
        """Durable when it returns.

        Raises: StoreFull.
        """
        self._list.append(msgspec.json.encode(Line(segment.state, segment.units, logged, printed)))

    def forget(self) -> None:
        self._list.cut(0)
