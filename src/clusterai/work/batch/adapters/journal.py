"""What of a job is done, in its store: a line for each segment, so that a killed node goes on from its last checkpoint."""

import msgspec

from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore
from clusterai.sandbox.adapters.growing import Appended
from clusterai.work.batch.adapters.logbook import Logbook
from clusterai.work.batch.core.outcome import Segment


class Line(msgspec.Struct, array_like=True, frozen=True):
    """A segment, and how many records of the job's `stdout` and log were kept when it was done.

    Attributes:
        is_mark: the job can go on from here. Of a module's segments that were run in one part only the last can be: what the others
            printed isn't told apart.
    """

    state: bytes
    units: int
    printed: int
    logged: int
    is_mark: bool

    @property
    def segment(self) -> Segment:
        return Segment(Digest(self.state), self.units)


class SegmentLog:
    """One list per job. A torn last line is a segment that wasn't done."""

    def __init__(self, store: BlobStore, job: Digest, logbook: Logbook | None = None) -> None:
        """
        Args:
            logbook: of the job; it goes forth and back with the segments.
        """
        self._store = store
        self._logbook = logbook
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
        return found

    def resume(self, lines: list[Line]) -> None:
        """These are done, and nothing else is; what was printed after the last of them will be printed again."""
        self._list.cut(len(lines))
        if self._logbook is not None:
            self._logbook.rewind(lines[-1].logged if lines else 0)

    def restart(self) -> None:
        """Nothing is done. It may print something else this time, so what it printed stays."""
        self._list.cut(0)
        if self._logbook is not None and any(map(self._logbook.size, ("stdout", "stderr"))):
            self._logbook.say("its node was restarted: the job begins again")

    def add(self, segment: Segment, printed: int = 0, is_mark: bool = True) -> None:
        """A mark, and all before it, is durable when this returns.

        Raises: StoreFull.
        """
        logged = self._logbook.flush() if is_mark and self._logbook is not None else 0
        line = Line(segment.state, segment.units, printed, logged, is_mark)
        self._list.append(msgspec.json.encode(line), durable=is_mark)

    def forget(self) -> None:
        self._list.cut(0)
