"""Kinds of work that answer with a use which a vault signed: what it costs, and what shows of it without data, noise key or mask.

Whether what left is right shows to nobody from the use. That it is this order's use and no other, that it spends what is charged, and that its
sums hold, shows to everybody; and one answer for which that isn't so convicts.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from clusterai.protocol.ids import ZERO_DIGEST
from clusterai.protocol.vaults import Use
from clusterai.work.kind import Findings

HONEST_MILLI, FALSE_MILLI = -1_000, 30_000
"""As of an interval of a rented machine: one answer that can't be convicts."""

Wrong = Callable[[Any, tuple[int, ...], str], str | None]
CheckPart = Callable[[Any, tuple[int, ...], str, bytes], Awaitable[Findings]]
Judge = Callable[[object, Any, tuple[int, ...], str], Awaitable[tuple[Findings, list[float]]]]


class Paid(msgspec.Struct, frozen=True):
    """What an order brought."""

    answer: bytes
    charged_wei: int = 0
    receipt: Any = None
    provider: str = ""


def milli(epsilon_micro: int) -> int:
    """Thousandths of ε, as they are paid: rounded up."""
    return -(-epsilon_micro // 1_000)


def charged(epsilon_micro: int | None) -> tuple[int, int]:
    """(thousandths of ε, uses) of an answer; nothing of what is none (None): being refused costs nothing."""
    return (0, 0) if epsilon_micro is None else (milli(epsilon_micro), 1)


def cap_wei(order: Any, input_wei: int, output_wei: int) -> int:
    """The most that an order can cost: its cap."""
    return milli(order.epsilon_micro) * input_wei + output_wei


def foreign(use: Use, due: Sequence[tuple[str, object, object]]) -> str | None:
    """Why a use doesn't belong to what was ordered; None where it does.

    Args:
        due: what it must be of: its name, what stands in the use, what should.
    """
    for what, found, expected in due:
        if found != expected:
            return f"its use is of another {what}"
    if not use.epsilon_micro <= use.grant_spent_micro <= use.total_spent_micro:
        return "its use's sums don't hold: this use, all of the grant, and all together"
    if use.result == ZERO_DIGEST:
        return "its use says that nothing left the vault"
    return None


def foreign_to(order: Any, use: Use) -> str | None:
    """The same, of an order that names data set, grant, requester and ε itself."""
    return foreign(
        use,
        (
            ("data set", use.dataset, order.dataset),
            ("grant", use.grant, order.grant),
            ("requester", use.requester, order.requester),
            ("order", use.order, order.digest()),
            ("ε", use.epsilon_micro, order.epsilon_micro),
        ),
    )


def checks(wrong: Wrong) -> tuple[CheckPart, Judge]:
    """A kind's `check_part` and `judge`: all that shows is looked at, whatever the lot draws, and there is no token to do again."""

    async def check_part(request: Any, tokens: tuple[int, ...], reason: str, lot: bytes) -> Findings:
        if wrong(request, tokens, reason) is not None:
            return Findings(1, 0, FALSE_MILLI, -1)
        return Findings(1, 1, HONEST_MILLI, 0)

    async def judge(
        engine: object, request: Any, tokens: tuple[int, ...], reason: str
    ) -> tuple[Findings, list[float]]:
        found = await check_part(request, tokens, reason, b"")
        return found, [0.0 if found.matches else math.inf]

    return check_part, judge


def spell(engine: object, answer: tuple[int, ...]) -> list[str]:
    return [f"{token} " for token in answer]
