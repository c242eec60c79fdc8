"""What shows in a round's answer to those who have neither the rows nor the mask: gateways and validators.

That it answers this order, that the use which the vault signed spends what is charged, under this grant, for this order, and binds the vault to the vector
that it committed to, and that sums hold. Whether the vault trained, and on what, shows to nobody from one answer: it is bounded by the clipping,
and found over rounds (`vault.core.secagg.suspects`, `core.evidence`). That a vault put into the sum what it committed to, the signed transcript shows.
"""

import math

from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.vaults import SignedUse, subject
from clusterai.work.kind import Findings
from clusterai.work.training.price import done_of
from clusterai.work.training.spec import KIND_NAME, Done, Round

HONEST_MILLI, FALSE_MILLI = -1_000, 30_000
"""As of a query: one answer that can't be convicts."""


def wrong(request: Round, tokens: tuple[int, ...], reason: str) -> str | None:
    """Why these tokens can't be this round's answer; None where nothing shows."""
    if reason != "stop":
        return f"it ended by {reason[:16]!r}, and a round ends with its answer"
    try:
        done = done_of(request, tokens)
    except ValueError as error:
        return str(error)
    return unbound(request, done) if isinstance(done, Done) else None


def unbound(request: Round, done: Done) -> str | None:
    """Why the signed use in it isn't of this order and this answer."""
    try:
        signed = canonical.decode(done.use, SignedUse)
    except Malformed as error:
        return f"its use can't be read: {str(error)[:200]}"
    use = signed.use
    for what, found, due in (
        ("data set", subject(Digest(use.dataset), KIND_NAME), request.model),
        ("grant", use.grant, request.grant),
        ("requester", use.requester, request.requester),
        ("order", use.order, done.order),
        ("ε", use.epsilon_micro, done.epsilon_micro),
        ("vector", use.result, done.commitment),
    ):
        if found != due:
            return f"its use is of another {what}"
    if not use.epsilon_micro <= use.grant_spent_micro <= use.total_spent_micro:
        return "its use's sums don't hold: this use, all of the grant, and all together"
    if use.result == ZERO_DIGEST:
        return "its use says that nothing left the vault"
    return None


async def check_part(request: Round, tokens: tuple[int, ...], reason: str, lot: bytes) -> Findings:
    """All that can be checked is, whatever `lot` draws."""
    if wrong(request, tokens, reason) is not None:
        return Findings(1, 0, FALSE_MILLI, -1)
    return Findings(1, 1, HONEST_MILLI, 0)


async def judge_answer(
    engine: object, request: Round, tokens: tuple[int, ...], reason: str
) -> tuple[Findings, list[float]]:
    """The same, for those who want to see the evidence."""
    found = await check_part(request, tokens, reason, b"")
    return found, [0.0 if found.matches else math.inf]


def spell(engine: object, answer: tuple[int, ...]) -> list[str]:
    return [f"{token} " for token in answer]
