"""A job while it runs: its logs where it would have printed them, one bar for however many tasks."""

import sys
import time
from types import TracebackType
from typing import Any

from clusterai.cli import say
from clusterai.sdk import ApiError, Unreachable
from clusterai.sdk.jobs import Jobs
from clusterai.sdk.jobshapes import Job, JobEvent

SERVERS = 500
WAITS_S = (0.2, 0.5, 1, 2, 4, 8, 8, 8)
"""Between attempts: a gateway that restarts is back within seconds, and events go on where they were."""


RESULTS = ("committed", "verified", "closed")


def has_results(job: Job) -> bool:
    """Whether every task has its outputs, or won't have any."""
    return all(task.output or task.state == "closed" for task in job.tasks)


class Bar:
    """Progress on stderr, where a person looks; nothing otherwise.

    Attributes:
        total: segments, bytes or tasks.
    """

    def __init__(self, what: str, total: int, unit: str = "") -> None:
        self._what = what
        self._total = max(1, total)
        self._unit = unit
        self._bar: Any = None
        self._task: Any = None
        self.done = 0

    def __enter__(self) -> "Bar":
        if say.person() and not say.is_quiet():
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            amount = "{task.completed}/{task.total}" if not self._unit else "{task.percentage:>3.0f} %"
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn(amount),
                TimeRemainingColumn(),
                console=say.console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, amount: int) -> None:
        self.at(self.done + amount)

    def at(self, done: int, what: str = "") -> None:
        self.done = min(done, self._total)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, **({"description": what} if what else {}))


def follow(jobs: Jobs, job: Job, quiet_logs: bool, after: int = 0, until_closed: bool = True) -> None:
    """Until every lease is closed, or only until every task has its outputs. Raises what the gateway raises when it stays away."""
    total = sum(task.segments for task in job.tasks)
    reached = {(task.task, task.replica): task.segment for task in job.tasks}
    told: dict[tuple[int, int], str] = {}
    done: set[tuple[int, int]] = set()
    failed = 0
    with Bar(job.name, total) as bar:
        while True:
            try:
                for event in jobs.follow(job.id, after):
                    after = max(after, event.seq)
                    failed = 0
                    _take(event, reached, told, bar, job, quiet_logs)
                    if until_closed or event.kind != "state" or event.state not in RESULTS:
                        continue
                    done.add((event.task, event.replica))
                    if len(done) == len(job.tasks) and has_results(jobs.show(job.id)):
                        return
                return
            except (Unreachable, ApiError) as error:
                if failed == len(WAITS_S) or (isinstance(error, ApiError) and error.status < SERVERS):
                    raise
                time.sleep(WAITS_S[failed])
                failed += 1


def _take(
    event: JobEvent,
    reached: dict[tuple[int, int], int],
    told: dict[tuple[int, int], str],
    bar: Bar,
    job: Job,
    quiet_logs: bool,
) -> None:
    match event.kind:
        case "log":
            # With --json stdout is the answer's.
            to_stdout = event.stream == "stdout" and not quiet_logs
            print_log(event.log(), sys.stdout if to_stdout else sys.stderr)
        case "progress":
            reached[event.task, event.replica] = event.segment
            bar.at(sum(reached.values()))
        case "state":
            one = f" task {event.task}" if len(job.tasks) > 1 else ""
            line = f"{event.state}{f', {event.text}' if event.text else ''}"
            # The same state again means that its outputs came.
            if told.get((event.task, event.replica)) != line:
                told[event.task, event.replica] = line
                say.say(f"{job.name}{one}: {line}")
        case "end":
            pass


def print_log(data: bytes, stream: Any) -> None:
    """Bytes as they came, whatever a job prints; but nothing that steers the terminal, for it is a stranger's."""
    text = data.decode(errors="replace")
    if stream.isatty():
        text = "".join(letter for letter in text if letter.isprintable() or letter in "\n\t\r")
    stream.write(text)
    stream.flush()
