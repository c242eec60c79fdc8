"""The audit of answers: one prefill each on the auditor's own engine, and every token drawn again.

While one answer is judged, the next are computed: short ones fill the engine's steps together, as ten rows cost as much
as thirty.
"""

from collections import deque
from collections.abc import Sequence

from clusterai.work.inference.core.grammar import BadSchema
from clusterai.work.inference.core.judge import Judge, forged, impossible
from clusterai.work.inference.engine import Engine, Rows
from clusterai.work.inference.spec import Generation
from clusterai.work.kind import Findings

Answered = tuple[Generation, tuple[int, ...], str]
"""A request, the tokens that came for it, and the reason that was stated for their end."""

ROWS_AHEAD = 256
"""Answers' tokens in work at once: their logits wait in memory to be judged, 192 KiB each with a vocabulary of 49,152. An
answer longer than that is in work alone."""


async def check(engine: Engine, answers: Sequence[Answered]) -> list[Findings]:
    """Findings for each answer, in order.

    Args:
        engine: of the model that the requests name, with the true weights.

    Raises:
        Unfit: this engine is too small for a request; ask one with a larger cache.
        EngineFailed: the auditor's engine broke; nothing is said about anybody.
    """
    found: list[Findings] = []
    coming, begun = deque(answers), deque[_Audit]()
    try:
        while coming or begun:
            while coming and (
                not begun or sum(audit.size for audit in begun) + len(coming[0][1]) <= ROWS_AHEAD
            ):
                begun.append(_Audit(engine, *coming.popleft()))
            findings, _ = await begun[0].outcome()
            found.append(findings)
            begun.popleft()
    finally:
        for audit in begun:
            await audit.close()
    return found


async def judge_answer(
    engine: Engine, generation: Generation, answer: tuple[int, ...], reason: str
) -> tuple[Findings, list[float]]:
    """The findings and every token's gap, for those who want to see the evidence."""
    audit = _Audit(engine, generation, answer, reason)
    try:
        return await audit.outcome()
    finally:
        await audit.close()


class _Audit:
    """One answer, whose prefill the engine was asked for."""

    def __init__(self, engine: Engine, generation: Generation, answer: tuple[int, ...], reason: str) -> None:
        self.size = len(answer)
        self._judge = _judge(engine, generation, answer, reason)
        self._rows: Rows | None = None
        if answer and self._judge is not None:
            so_far = generation.so_far
            self._rows = engine.score(generation.prompt, (*so_far, *answer), len(so_far))

    async def outcome(self) -> tuple[Findings, list[float]]:
        if self._judge is None:
            return impossible(self.size), []
        if self._rows is not None:
            async for chunk in self._rows:
                self._judge.read(chunk)
        return self._judge.findings(), self._judge.gaps

    async def close(self) -> None:
        if self._rows is not None:
            await self._rows.aclose()


def _judge(engine: Engine, generation: Generation, answer: tuple[int, ...], reason: str) -> Judge | None:
    """None where the answer's shape is a lie, so that there is nothing to weigh."""
    before = (*generation.prompt, *generation.so_far)
    if generation.model != engine.model or max(before) >= engine.vocabulary:
        return None
    if forged(generation, answer, reason, engine.words, engine.context):
        return None
    try:
        grammar = engine.grammar(generation)
    except BadSchema:
        return None
    return Judge(generation, answer, engine.calibration, grammar)


def spell(engine: Engine, answer: tuple[int, ...]) -> list[str]:
    """Each token's own text."""
    return [engine.words.bytes_of(token).decode("utf-8", "replace") for token in answer]
