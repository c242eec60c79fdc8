"""The audit of a sealed answer: the same evaluation on the same ciphertexts, compared byte by byte.

Multiplying and adding ciphertexts is arithmetic on whole numbers, and draws nothing: there is one right answer. An auditor learns as
little of the input as the provider did, which is nothing.
"""

from collections.abc import Sequence

from clusterai.work.kind import Findings
from clusterai.work.packed import Unpackable, bytes_of
from clusterai.work.sealed.core.wire import NoCiphertext, residues_of
from clusterai.work.sealed.engine import Engine, Unfit
from clusterai.work.sealed.spec import Sealed

Answered = tuple[Sealed, tuple[int, ...], str]

HONEST_MILLI, FALSE_MILLI = -1_000, 30_000
"""Weights of one answer. From the sequential test's floor to conviction is 27,632: one false answer convicts."""


def wrong(request: Sealed, answer: tuple[int, ...], reason: str) -> str | None:
    """Why this can't be an answer, as far as it shows without the model.

    `cancelled` with nothing is believed: the gateway knows whether it cancelled.
    """
    if reason == "cancelled" and not answer:
        return None
    if reason != "stop":
        return f"sealed answers don't end by {reason[:20]!r}"
    try:
        data = bytes_of(answer)
        if len(data) != request.answer_bytes:
            return f"{len(data)} bytes came, {request.answer_bytes} were asked for"
        size = request.ring.ciphertext_bytes
        for at in range(0, len(data), size):
            residues_of(request.ring, data[at : at + size])
    except (Unpackable, NoCiphertext) as error:
        return str(error)
    return None


async def check(engine: Engine, answers: Sequence[Answered]) -> list[Findings]:
    """Findings for each answer, in order.

    Raises:
        EngineFailed: the auditor's engine broke; nothing is said about anybody.
    """
    return [(await judge_answer(engine, *answered))[0] for answered in answers]


async def judge_answer(
    engine: Engine, request: Sealed, answer: tuple[int, ...], reason: str
) -> tuple[Findings, list[float]]:
    """The findings, and for each ciphertext of the answer 0, or 1 where it is another. An honest provider refuses what doesn't fit the
    model, so its answer convicts."""
    if wrong(request, answer, reason) is not None:
        return Findings(len(answer), 0, FALSE_MILLI, -1), []
    if not answer:
        return Findings(0, 0, 0, 0), []
    try:
        ours = await engine.evaluate(request)
    except Unfit:
        return Findings(len(answer), 0, FALSE_MILLI, -1), []
    theirs, size = bytes_of(answer), request.ring.ciphertext_bytes
    false = [theirs[at : at + size] != ours[at : at + size] for at in range(0, len(ours), size)]
    lies = sum(false)
    weight = lies * FALSE_MILLI if lies else HONEST_MILLI
    found = Findings(len(false), len(false) - lies, weight, -1 if lies else 0)
    return found, [float(it) for it in false]


def spell(engine: Engine, answer: tuple[int, ...]) -> list[str]:
    return [f"{token:06x} " for token in answer]
