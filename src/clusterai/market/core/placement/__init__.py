"""Which machines a renter gets: of all offers that stand the group that costs least for what it is asked, and why not another.

    offers.py       an offer, and of every field who says so           coordinates.py  places from round trips
    feed.py         signed offers in, hostile ones out
    index.py        100,000 of them as columns                         location.py     what a round trip proves
    request.py      what a renter asks                                 roundtrips.py   what was measured between nodes
    shortlist.py    the 200 that matter                                problem.py      the choice as numbers
    choose.py       the group                                          place.py        all of it in a row
    explain.py      why not, and what each wish costs                  answer.py       both, or the plan with them
    listing.py      offers by price                                    book.py         held before it is shown
    auction.py      one price for a group                              sale.py         a group bought at it
    population.py   a made-up world

Nothing in here talks to anyone or knows the time; a plan is a value. It refuses to trust a machine's word about itself.
"""

from clusterai.market.core.placement.answer import Answered, answer
from clusterai.market.core.placement.auction import Bid, Sale, TooFew, sell
from clusterai.market.core.placement.book import (
    Book,
    Booked,
    Confirm,
    Freed,
    Hold,
    Holding,
    Refused,
    Release,
    Seat,
    seats_of,
)
from clusterai.market.core.placement.explain import Toll, WhyNot, tolls, why_not
from clusterai.market.core.placement.feed import OfferFeed, Turned
from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.offers import Coordinate, Measurement, Offer, Source
from clusterai.market.core.placement.place import NoPlan, Plan, place
from clusterai.market.core.placement.request import Need, Part, Request, single
from clusterai.market.core.placement.roundtrips import RoundTrips
from clusterai.protocol.offers import Field

__all__ = [
    "Answered",
    "Bid",
    "Book",
    "Booked",
    "Confirm",
    "Coordinate",
    "Field",
    "Freed",
    "Hold",
    "Holding",
    "Index",
    "Measurement",
    "Need",
    "NoPlan",
    "Offer",
    "OfferFeed",
    "Part",
    "Plan",
    "Refused",
    "Release",
    "Request",
    "RoundTrips",
    "Sale",
    "Seat",
    "Source",
    "Toll",
    "TooFew",
    "Turned",
    "WhyNot",
    "answer",
    "place",
    "seats_of",
    "sell",
    "single",
    "tolls",
    "why_not",
]
