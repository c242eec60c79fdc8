"""`clusterai node explain` of a machine that is offered to renters: its place by price, and what keeps renters from it."""

from collections.abc import Sequence

from clusterai.cli.explaining import Finding
from clusterai.cli.say import nth
from clusterai.node.config import Config
from clusterai.protocol.money import show as money
from clusterai.sdk.offershapes import Machine, OfferList

NAME = "rent"


def reasons(
    config: Config, hot: str, offers: OfferList | None, is_paused: bool, withheld: Sequence[str] = ()
) -> list[Finding]:
    """
    Args:
        hot: the machine's key, by which it is offered.
        offers: what its gateway lists now, the cheapest first; None where that couldn't be asked.
        withheld: why the machine isn't offered, by its own word.
    """
    if config.rentals is None or offers is None or is_paused:
        return []
    place, mine = next(
        ((at, it) for at, it in enumerate(offers.offers, 1) if it.node.lower() == hot.lower()), (0, None)
    )
    if mine is None and withheld:
        return [Finding(NAME, "limits", "it isn't offered to renters", "; ".join(withheld))]
    if mine is None:
        said = "the gateway doesn't list it now"
        if offers.suitable > len(offers.offers):
            said += f" among the {len(offers.offers)} cheapest of {offers.suitable}"
        cure = (
            "rented machines aren't listed; else `not_listed` or `cards_withheld` in the node's log says why"
        )
        return [Finding(NAME, "limits", said, cure)]
    return [_price(place, mine, offers), *_unmeasured(mine)]


def _price(place: int, mine: Machine, offers: OfferList) -> Finding:
    price_wei = int(mine.price_wei.value)
    said = f"{nth(place)} of {offers.suitable} by price, {money(price_wei)} an hour"
    cheaper = offers.offers[: place - 1]
    # Where both ask the same, the first place is what is told.
    steps = {int(cheaper[at - 1].price_wei.value): at for at in (place - 1, 1) if cheaper}
    steps.pop(price_wei, None)
    if not steps:
        return Finding(NAME, "good", said)
    told = [
        f"below {money(wei)}, {wei / price_wei:.3g} x yours, it would be {nth(at)}"
        for wei, at in sorted(steps.items(), reverse=True)
    ]
    return Finding(NAME, "limits", said, f"{'; '.join(told)} (`rentals.hour_wei`)")


def _unmeasured(mine: Machine) -> list[Finding]:
    if mine.links_per_s_milli is not None:
        return []
    said = (
        "nobody measured its sentinel yet: its time is rented unproven, and `--measured profile` passes it by"
    )
    cure = "validators do it unasked, at the next draw after it joined; a card in `clusterai node card` is the sign"
    return [Finding(NAME, "limits", said, cure)]
