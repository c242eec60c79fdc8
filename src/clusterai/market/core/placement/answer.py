"""What a renter is answered: a plan with what each wish costs, or why there is none; from an index that nobody changes meanwhile.

Closeness counts only among machines whose place somebody measured. Where these are too few and the renter set no limit on
distances, the group is chosen without it, and the answer says so: how far apart it is isn't known.
"""

import msgspec

from clusterai.market.core.placement.explain import Toll, WhyNot, tolls, why_not
from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.place import Plan, place
from clusterai.market.core.placement.request import Request, faults
from clusterai.market.core.placement.roundtrips import RoundTrips
from clusterai.market.core.placement.sale import buy


class Answered(msgspec.Struct, frozen=True):
    """Attributes:
    request: as it was placed.
    is_blind: closeness was left out, since too few places are known; the plan's diameter means nothing then.
    """

    request: Request
    plan: Plan
    tolls: tuple[Toll, ...]
    is_blind: bool


def answer(
    index: Index,
    request: Request,
    trips: RoundTrips | None,
    now_s: float,
    *,
    told: bool = True,
    one_price: bool = False,
) -> Answered | WhyNot:
    """
    Args:
        told: whether tolls and relaxations are worked out, which costs several placements.
        one_price: buy the group at one price for all (`sale.py`); tolls aren't worked out then.
    """
    choose = buy if one_price else place
    plan = choose(index, request, trips, now_s)
    asked = request
    if not isinstance(plan, Plan) and _may_be_blind(request):
        asked = msgspec.structs.replace(request, us_wei=0)
        plan = choose(index, asked, trips, now_s)
    if isinstance(plan, Plan):
        costs = tolls(index, asked, plan, trips, now_s) if told and not one_price else ()
        return Answered(asked, plan, costs, asked is not request)
    if tuple(faults(request)) or not told:
        return WhyNot(plan.candidates, (), (), ())
    # What is said of one that can't be placed at all is what helps without closeness, too.
    return why_not(index, asked, trips, now_s)


def _may_be_blind(request: Request) -> bool:
    return (
        request.nodes > 1 and request.us_wei > 0 and request.most_rtt_us is None and request.near_us is None
    )
