"""Draws answers again as the auditor asks for it, many in one batch per model.

    Check ──> queue ──> the next up to AT_ONCE of one model ──> kind.check(engine, …) ──> Checked | CheckFailed

Whatever goes wrong here is this validator's own fault and is told as such; it never speaks against a provider.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Digest
from clusterai.validator.adapters.engines import Engines, NoEngine
from clusterai.validator.core.words import Check, Checked, CheckFailed
from clusterai.work import Kind
from clusterai.work.engine import EngineFailed, Unfit
from clusterai.work.kind import CheckPart, Findings

AT_ONCE = 16
MOST_WAITING = 20_000
"""Checks that wait; beyond it new ones fail and are asked for again."""


class Checker:
    """One worker, as engines batch inside.

    Args:
        engines: one per model; one that broke is dropped, and loaded anew for the next try.
        tell: hears each outcome.
    """

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        engines: Engines,
        tell: Callable[[Checked | CheckFailed], None],
    ) -> None:
        self._kinds = kinds
        self._engines = engines
        self._tell = tell
        self._waiting: deque[Check] = deque()
        self._wake = asyncio.Event()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def ask(self, check: Check) -> None:
        if len(self._waiting) >= MOST_WAITING:
            # Not at once: the machine is in the middle of a step.
            asyncio.get_running_loop().call_soon(self._fail, check, "too many checks wait", False)
            return
        self._waiting.append(check)
        self._wake.set()

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            await self._batch(self._next())

    def _next(self) -> list[Check]:
        """The oldest check, and others of its model and kind behind it."""
        first = self._waiting[0].transcript
        batch: list[Check] = []
        rest: deque[Check] = deque()
        for check in self._waiting:
            it = check.transcript
            alike = (it.kind, it.order.model) == (first.kind, first.order.model)
            (batch if alike and len(batch) < AT_ONCE else rest).append(check)
        self._waiting = rest
        return batch

    async def _batch(self, batch: list[Check]) -> None:
        found = await self._findings(batch)
        if isinstance(found, list):
            for check, findings in zip(batch, found, strict=True):
                self._tell(Checked(check.provider, check.epoch, check.index, check.leaf, findings))
        elif len(batch) > 1 and isinstance(found, Unfit | EngineFailed):
            # One of them failed the batch: each by itself, so that it fails alone.
            for check in batch:
                await self._batch([check])
        else:
            for check in batch:
                self._fail(check, str(found) or type(found).__name__, not isinstance(found, EngineFailed))

    async def _findings(self, batch: list[Check]) -> list[Findings] | Exception:
        transcript = batch[0].transcript
        kind, model = self._kinds[transcript.kind], Digest(transcript.order.model)
        if kind.check_part is not None:
            return await self._parts(kind, kind.check_part, batch)
        if kind.check is None:
            return NotImplementedError(f"work of kind {kind.name} can't be checked yet")
        try:
            engine = await self._engines.of(model)
            answers = [
                (kind.decode(it.transcript.request), it.transcript.answer.tokens, it.transcript.answer.reason)
                for it in batch
            ]
            return await kind.check(engine, answers)
        except (NoEngine, Malformed, Unfit) as error:
            return error
        except EngineFailed as error:
            await self._engines.drop(model)
            return error
        except ExceptionGroup as errors:
            # Checks run in a task group; anything but these two is a bug of ours, and crashes.
            ours, others = errors.split((Unfit, EngineFailed))
            if others is not None or ours is None:
                raise
            first = _first(ours)
            if isinstance(first, EngineFailed):
                await self._engines.drop(model)
            return first

    @staticmethod
    async def _parts(kind: Kind, check_part: CheckPart, batch: list[Check]) -> list[Findings] | Exception:
        found: list[Findings] = []
        try:
            for check in batch:
                answer = check.transcript.answer
                request = kind.decode(check.transcript.request)
                found.append(await check_part(request, answer.tokens, answer.reason, check.lot))
        except Malformed as error:
            return error
        return found

    def _fail(self, check: Check, reason: str, final: bool) -> None:
        self._tell(CheckFailed(check.provider, check.epoch, check.index, check.leaf, reason, final))


def _first(errors: ExceptionGroup[Any]) -> Exception:
    first: Exception = errors.exceptions[0]
    return _first(cast("ExceptionGroup[Any]", first)) if isinstance(first, ExceptionGroup) else first
