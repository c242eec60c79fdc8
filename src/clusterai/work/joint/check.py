"""What shows in an answer to those who have neither the data nor the requester's key: gateways and validators.

That it is the answer to this order, and that the use which the vault signed spends this order's ε under its grant. Whether the share is right shows to who is given data
and noise key: both make the same share again, and the use's result commits to it.
"""

from clusterai.protocol.canonical import Malformed
from clusterai.work.joint.spec import Pledge, Said, ShareOrder, decode_said
from clusterai.work.packed import Unpackable, bytes_of
from clusterai.work.uses import checks, foreign_to


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
        why = foreign_to(order, said.use.use)
        if why is not None:
            raise ValueError(why)
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


check_part, judge_answer = checks(wrong)
