"""What was asked for and perhaps never answered, so that a run whose terminal died is taken up again instead of paid a second time.

    noted ──submitted──> answered ──outputs here──> forgotten
      └─ killed: the same again is the same job         └─ killed, or --detach: the same again is told of it

Chance and clock are drawn for a run, and are part of the job: without them written down, the same file run again would be another
job. Who runs the same thing beside itself, on purpose, gets as many jobs as runs: a note belongs to one living process.
"""

import time
from pathlib import Path
from typing import Self

import msgspec
from blake3 import blake3

from clusterai.cli.lock import Lock
from clusterai.sdk.jobshapes import JobRequest
from clusterai.work.batch.spec import JobArray

TAKEN_UP_S = 3600
"""A job that began its clock longer ago is begun anew."""


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seed: int
    clock_s: int
    job: str = ""
    """its id, once the gateway said it"""


class Begun:
    """The note of one run: of this content, at this gateway, on these conditions."""

    def __init__(self, folder: Path, gateway: str, array: JobArray, request: JobRequest, drawn: bool) -> None:
        """
        Args:
            drawn: whether the seed was drawn here; one that was said is part of what is asked.
        """
        timeless = msgspec.structs.replace(array.job, clock_s=0, **({"seed": 0} if drawn else {}))
        same = JobArray(timeless, array.tasks).canonical()
        wishes = msgspec.json.encode(msgspec.structs.replace(request, job=""))
        name = blake3(gateway.encode() + b"\0" + wishes + b"\0" + same).hexdigest(16)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / f"{name}.json"
        self._lock = Lock(folder / f"{name}.lock")
        self._is_ours = self._lock.take()
        self.before = self._read() if self._is_ours else None
        """What a run that is over left here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.let_go()

    def taken_up(self, array: JobArray, now_s: float | None = None) -> JobArray:
        """The job that was asked for and never answered, or this one."""
        before, now_s = self.before, time.time() if now_s is None else now_s
        if before is None or before.job or not 0 <= now_s - before.clock_s < TAKEN_UP_S:
            return array
        return JobArray(
            msgspec.structs.replace(array.job, seed=before.seed, clock_s=before.clock_s), array.tasks
        )

    def note(self, array: JobArray, job: str = "") -> None:
        """It is about to be asked for, or was answered."""
        if self._is_ours:
            new = self._path.with_suffix(".new")
            new.write_bytes(msgspec.json.encode(Note(array.job.seed, array.job.clock_s, job)))
            new.replace(self._path)

    def forget(self) -> None:
        """Its outputs are here, or it never was."""
        if self._is_ours:
            self._path.unlink(missing_ok=True)

    def _read(self) -> Note | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Note)
        except (OSError, msgspec.DecodeError):
            return None
