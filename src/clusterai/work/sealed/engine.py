"""The engine port of sealed inference: beyond what daemons need, the answer's bytes themselves, for the audit."""

from typing import Protocol

from clusterai.work.engine import Busy, EngineFailed, Finish, Stats, Stream, TokenEvent, Unfit
from clusterai.work.sealed.core.layout import Layout
from clusterai.work.sealed.spec import Sealed


class Engine(Protocol):
    """One loaded model; `model` is its content address."""

    model: bytes
    layout: Layout

    def submit(self, request: Sealed, /) -> Stream:
        """Queue a request; called in the event loop's thread. Its tokens come all at once, before `Finish`.

        Raises:
            Busy: too many wait.
            Unfit: another model or ring, more or fewer ciphertexts than the layout has.
        """
        ...

    async def evaluate(self, request: Sealed) -> bytes:
        """The answer's ciphertexts, one after another.

        Raises:
            Unfit: see `submit`; or the ciphertexts make a product that hides nothing, as only made-up ones do.
            EngineFailed: it broke.
        """
        ...

    def stats(self) -> Stats: ...

    async def close(self) -> None: ...


__all__ = ["Busy", "Engine", "EngineFailed", "Finish", "Stats", "Stream", "TokenEvent", "Unfit", "unfit"]


def unfit(engine: Engine, request: Sealed) -> str | None:
    """Why this engine can't ever do the request; None where it can."""
    plan = engine.layout
    if request.model != engine.model:
        return f"this engine serves model 0x{engine.model.hex()}; ask another provider"
    if request.degree != plan.degree:
        return f"this model's ring has degree {plan.degree}, not {request.degree}"
    if (len(request.ciphertexts), request.answers) != (plan.asked, plan.answered):
        return f"this model takes {plan.asked} ciphertexts and answers with {plan.answered}"
    return None
