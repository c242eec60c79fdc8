"""What shows in a round's answer to those who have neither the rows nor the mask: gateways and validators.

That it answers this order, that the use which the vault signed spends what is charged, under this grant, for this order, and binds the vault to the vector
that it committed to, and that sums hold. Whether the vault trained, and on what, shows to nobody from one answer: it is bounded by the clipping,
and found over rounds (`vault.core.secagg.suspects`, `core.evidence`). That a vault put into the sum what it committed to, the signed transcript shows.
"""

from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Digest
from clusterai.protocol.vaults import SignedUse, subject
from clusterai.work.training.price import done_of
from clusterai.work.training.spec import KIND_NAME, Done, Round
from clusterai.work.uses import checks, foreign


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
    return foreign(
        use,
        (
            ("data set", subject(Digest(use.dataset), KIND_NAME), request.model),
            ("grant", use.grant, request.grant),
            ("requester", use.requester, request.requester),
            ("order", use.order, done.order),
            ("ε", use.epsilon_micro, done.epsilon_micro),
            ("vector", use.result, done.commitment),
        ),
    )


check_part, judge_answer = checks(wrong)
