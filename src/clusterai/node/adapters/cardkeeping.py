"""Whether the graphics cards that a node offers can be had now: what can't isn't offered, so that nobody's plan breaks on it."""

import asyncio
from collections.abc import Callable

import structlog

from clusterai.work.cluster.adapters.cards import Cards

LOOK_S = 30.0

log: structlog.stdlib.BoundLogger = structlog.get_logger("node.cards")


async def keep_cards(
    cards: Cards,
    withhold: Callable[[str, str], None],
    rented: Callable[[], bool],
    look_s: float = LOOK_S,
) -> None:
    """Until cancelled.

    Args:
        withhold: hears `cards` and why the machine isn't to be offered, or nothing where it may be.
        rented: whether a tenant has them now, and so is on them.
    """
    said: str | None = None
    while True:
        why = await asyncio.to_thread(cards.why_not, busy=rented())
        if why != said:
            said = why
            withhold("cards", why)
            if why:
                log.warning("cards_withheld", why=why)
        await asyncio.sleep(look_s)
