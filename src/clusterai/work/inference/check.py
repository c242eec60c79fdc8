"""The audit of answers: one prefill each on the auditor's own engine, and every token drawn again.

One after the other: an answer's tokens fill the engine's batch by themselves.
"""

from collections.abc import Sequence

from clusterai.work.inference.core.grammar import BadSchema
from clusterai.work.inference.core.judge import Judge, forged, impossible
from clusterai.work.inference.engine import Engine
from clusterai.work.inference.spec import Generation
from clusterai.work.kind import Findings

Answered = tuple[Generation, tuple[int, ...], str]
"""A request, the tokens that came for it, and the reason that was stated for their end."""


async def check(engine: Engine, answers: Sequence[Answered]) -> list[Findings]:
    """Findings for each answer, in order.

    Args:
        engine: of the model that the requests name, with the true weights.

    Raises:
        Unfit: this engine is too small for a request; ask one with a larger cache.
        EngineFailed: the auditor's engine broke; nothing is said about anybody.
    """
    return [(await judge_answer(engine, *answered))[0] for answered in answers]


async def judge_answer(
    engine: Engine, generation: Generation, answer: tuple[int, ...], reason: str
) -> tuple[Findings, list[float]]:
    """The findings and every token's gap, for those who want to see the evidence."""
    before = (*generation.prompt, *generation.so_far)
    if generation.model != engine.model or max(before) >= engine.vocabulary:
        return impossible(len(answer)), []
    if forged(generation, answer, reason, engine.words, engine.context):
        return impossible(len(answer)), []
    try:
        grammar = engine.grammar(generation)
    except BadSchema:
        return impossible(len(answer)), []
    judge = Judge(generation, answer, engine.calibration, grammar)
    if answer:
        rows = engine.score(generation.prompt, (*generation.so_far, *answer), len(generation.so_far))
        async for chunk in rows:
            judge.read(chunk)
    return judge.findings(), judge.gaps


def spell(engine: Engine, answer: tuple[int, ...]) -> list[str]:
    """Each token's own text."""
    return [engine.words.bytes_of(token).decode("utf-8", "replace") for token in answer]
