"""What shows in an answer to those who have neither the data nor the requester's key: gateways and validators.

That it is the answer to this order, and that the use which the vault signed spends this order's ε under its grant. Whether the share is right shows to who is given data
and noise key: both make the same share again, and the use's result commits to it.
"""

import math

from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import ZERO_DIGEST
from clusterai.work.joint.spec import Pledge, Said, ShareOrder, decode_said
from clusterai.work.kind import Findings
from clusterai.work.packed import Unpackable, bytes_of

HONEST_MILLI, FALSE_MILLI = -1_000, 30_000
"""As of an answer to a query: one that can't be convicts."""


def said_of(order: ShareOrder, answer: bytes) -> Said:
    """
    Raises:
        ValueError: that can't be this order's answer.
    """
    try:
        said = decode_said(answer)
    except Malformed as error:
        raise ValueError(f"not an answer to an order of a share: {str(error)[:200]}") from None
    if said.order != order.digest():
        raise ValueError("it answers another order")
    if isinstance(said, Pledge):
        use = said.use.use
        for what, found, due in (
            ("data set", use.dataset, order.dataset),
            ("grant", use.grant, order.grant),
            ("requester", use.requester, order.requester),
            ("order", use.order, said.order),
            ("ε", use.epsilon_micro, order.epsilon_micro),
        ):
            if found != due:
                raise ValueError(f"its use is of another {what}")
        if not use.epsilon_micro <= use.grant_spent_micro <= use.total_spent_micro:
            raise ValueError("its use's sums don't hold: this use, all of the grant, and all together")
        if use.result == ZERO_DIGEST:
            raise ValueError("its use says that nothing left the vault")
    return said


def said_in(order: ShareOrder, tokens: tuple[int, ...]) -> Said:
    """
    Raises:
        ValueError.
    """
    try:
        return said_of(order, bytes_of(tokens))
    except Unpackable as error:
        raise ValueError(str(error)) from None


def wrong(order: ShareOrder, tokens: tuple[int, ...], reason: str) -> str | None:
    """Why these tokens can't be this order's answer; None where nothing shows."""
    if reason != "stop":
        return f"a share doesn't end by {reason[:16]!r}"
    try:
        said_in(order, tokens)
    except ValueError as error:
        return str(error)
    return None


async def check_part(order: ShareOrder, tokens: tuple[int, ...], reason: str, lot: bytes) -> Findings:
    """All that can be checked is, whatever `lot` draws."""
    if wrong(order, tokens, reason) is not None:
        return Findings(1, 0, FALSE_MILLI, -1)
    return Findings(1, 1, HONEST_MILLI, 0)


async def judge_answer(
    engine: object, order: ShareOrder, tokens: tuple[int, ...], reason: str
) -> tuple[Findings, list[float]]:
    """The same, for those who want to see the evidence."""
    found = await check_part(order, tokens, reason, b"")
    return found, [0.0 if found.matches else math.inf]


def spell(engine: object, answer: tuple[int, ...]) -> list[str]:
    return [f"{token} " for token in answer]
