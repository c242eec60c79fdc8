"""The audit of vectors: computed again on the auditor's own engine, and compared within a tolerance."""

from collections.abc import Sequence

from clusterai.work.embedding.core import judge
from clusterai.work.embedding.engine import Engine, unfit
from clusterai.work.embedding.spec import SCALE, ZERO, Embedding
from clusterai.work.kind import Findings

Answered = tuple[Embedding, tuple[int, ...], str]


async def check(engine: Engine, answers: Sequence[Answered]) -> list[Findings]:
    """Findings for each answer, in order.

    Raises:
        EngineFailed: the auditor's engine broke; nothing is said about anybody.
    """
    return [(await judge_answer(engine, *answered))[0] for answered in answers]


async def judge_answer(
    engine: Engine, request: Embedding, answer: tuple[int, ...], reason: str
) -> tuple[Findings, list[float]]:
    """The findings and every number's gap. An honest provider refuses what doesn't fit the model, so its answer convicts."""
    if unfit(engine, request) or judge.wrong(request, answer, reason) or len(answer) % request.size:
        return judge.impossible(len(answer)), []
    if not answer:
        return Findings(0, 0, 0, 0), []
    ours = await engine.embed(request.texts[: len(answer) // request.size])
    return judge.judge(ours, answer)


def spell(engine: Engine, answer: tuple[int, ...]) -> list[str]:
    return [f"{(token - ZERO) / SCALE:+.5f} " for token in answer]
