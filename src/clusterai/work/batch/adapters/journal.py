"""What of a job is done, on disk: a line for each segment, so that a killed node goes on from its last checkpoint."""

import os
from pathlib import Path

import msgspec

from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore
from clusterai.work.batch.core.outcome import Segment


class _Line(msgspec.Struct, array_like=True):
    state: bytes
    units: int


class SegmentLog:
    """One file per job. A torn last line is a segment that wasn't done."""

    def __init__(self, folder: Path, job: Digest) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / f"{job.hex()}.segments"

    def read(self, store: BlobStore) -> list[Segment]:
        """The segments whose states are still there, state 0 (with no units) first; empty where nothing was begun."""
        found: list[Segment] = []
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return found
        whole = raw[: raw.rfind(b"\n") + 1]
        for line in whole.splitlines():
            try:
                entry = msgspec.json.decode(line, type=_Line)
            except msgspec.MsgspecError:
                break
            if len(entry.state) != 32 or Digest(entry.state) not in store:
                break
            found.append(Segment(Digest(entry.state), entry.units))
        return found

    def begin(self, segments: list[Segment]) -> None:
        """Start over with these."""
        self._path.unlink(missing_ok=True)
        for segment in segments:
            self.add(segment)

    def add(self, segment: Segment) -> None:
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(_Line(segment.state, segment.units)) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)
