"""Where a provider's offer stands among those of its model, and what would move it: for its owner to read.

Routing draws two providers and takes the better one, so the place alone says how much comes:

    share of the r-th of n = 2 (n - r) / (n (n - 1)),     all of it for who is alone, none for the last of several

as long as all are as busy as they are now: load counts as waiting, so the others' turn comes when the better ones work.
"""

import msgspec

from clusterai.market.core.routing import Pick, Preference, Routing
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import ModelOffer


class Rank(msgspec.Struct, frozen=True):
    """One offer beside those that are usable now. Prices are of a unit in and one out, together.

    Attributes:
        obstacle: why it gets nothing at all now; it is ranked as if that weren't.
        place: from 1, the best, to `of`.
        share: of this gateway's requests for the model that come to it while all are as busy as now.
        price_wei, wait_s, doubt: its score's factors: price, expected wait for the first token, and 1 for the best
            standing up to 2 for the worst. The lowest product is the best.
        next_price_wei: the most that it may ask to be one place better; None for the first, and where no price would.
        first_price_wei: the same for the first place.
        cheapest_wei, quickest_s: the least price and the least wait of any usable offer but its own.
        answers_an_hour, all_answers_an_hour: what this gateway had of the model lately, from it and from all.
    """

    model: Digest
    name: str
    obstacle: str
    place: int
    of: int
    share: float
    price_wei: int
    wait_s: float
    doubt: float
    next_price_wei: int | None
    first_price_wei: int | None
    cheapest_wei: int | None
    quickest_s: float | None
    answers_an_hour: float
    all_answers_an_hour: float


def ranks(routing: Routing, provider: Address, now_s: float) -> tuple[Rank, ...]:
    """Of all that it offers; nothing for who isn't linked."""
    standing = routing.providers.get(provider)
    if standing is None:
        return ()
    return tuple(_rank(routing, Pick(provider, offer), now_s) for offer in standing.offers.values())


def share(place: int, of: int) -> float:
    return 1.0 if of == 1 else 2 * (of - place) / (of * (of - 1))


def _rank(routing: Routing, mine: Pick, now_s: float) -> Rank:
    model = Digest(mine.offer.model)
    obstacle = routing.obstacle(mine.provider, mine.offer, Preference(), (), now_s)
    others = [it for it in routing.usable(model, now_s) if it.provider != mine.provider]
    score = routing.score(mine)
    better = sorted(it for it in map(routing.score, others) if it < score)
    price, wait = _price_wei(mine.offer), routing.score(mine, "latency")
    weighs = score / (1 + price)
    """what a unit of its price weighs, the other factors being as they are"""
    return Rank(
        model=model,
        name=mine.offer.name,
        obstacle="" if obstacle is None else obstacle.detail,
        place=len(better) + 1,
        of=len(others) + 1,
        share=share(len(better) + 1, len(others) + 1),
        price_wei=price,
        wait_s=wait,
        doubt=score / ((1 + price) * wait),
        next_price_wei=_below(better[-1], weighs) if better else None,
        first_price_wei=_below(better[0], weighs) if better else None,
        cheapest_wei=min((_price_wei(it.offer) for it in others), default=None),
        quickest_s=min((routing.score(it, "latency") for it in others), default=None),
        answers_an_hour=routing.answers_an_hour(model, mine.provider, now_s),
        all_answers_an_hour=routing.answers_an_hour(model, None, now_s),
    )


def _price_wei(offer: ModelOffer) -> int:
    return offer.input_price_wei + offer.output_price_wei


def _below(score: float, weighs: float) -> int | None:
    """The highest whole price with a score under this one."""
    price = int(score / weighs) - 1
    while price >= 0 and (1 + price) * weighs >= score:
        price -= 1
    return price if price >= 0 else None
