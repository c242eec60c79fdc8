"""Whether a rented machine and its cluster's head hear each other through the mesh, and whose word is believed.

Each machine says since when it heard nothing of whom (`StayHears`); so each direction is told of by the one that would hear it, and can be lied
about by that one alone. Hence nobody's word takes away another's pay:

    the head hears it   it hears the head
    yes                 yes                 it is paid
    yes                 no                  not paid: it says so itself
    no                  no, or no word      not paid
    no                  yes                 paid, until it is exchanged: the head's word alone is worth no more
    no word             yes, or no word     paid

A head counts as parted where that is so of all machines beside it, two at least, seen from its side: then it is what they have in common.
"""

from collections.abc import Mapping

import msgspec

from clusterai.gateway.core.rentbooks import HEAD
from clusterai.gateway.core.rentstate import Stay

DEAF_S = 8.0
"""Each sends something every second; so many in a row are lost by no link that stands."""
FRESH_S = 20.0
"""A word that is older isn't one."""


class Parted(msgspec.Struct, frozen=True):
    """`since_s`: when it was last heard for certain."""

    since_s: float
    is_paid: bool


class _Word(msgspec.Struct, frozen=True):
    hears: bool
    last_s: float


def _word(listener: Stay, speaker: Stay, now_s: float) -> _Word | None:
    """What one says of hearing the other. What was before both were ready is no reproach."""
    last_s = listener.heard_s.get(speaker.place)
    if listener.said_s is None or last_s is None or now_s - listener.said_s > FRESH_S:
        return None
    last_s = max(last_s, listener.ready_s or 0.0, speaker.ready_s or 0.0)
    return _Word(listener.said_s - last_s <= DEAF_S, last_s)


def _apart(one: Stay, other: Stay, now_s: float) -> Parted | None:
    """Of the first of two machines: whether it is parted from the second."""
    own, others = _word(one, other, now_s), _word(other, one, now_s)
    if own is not None and not own.hears:
        # The later of the two: nobody dates another's silence back.
        since_s = own.last_s if others is None or others.hears else max(own.last_s, others.last_s)
        return Parted(since_s, is_paid=False)
    if others is not None and not others.hears:
        return Parted(others.last_s, is_paid=own is not None)
    return None


def parted(stays: Mapping[int, Stay], now_s: float) -> dict[int, Parted]:
    """By place, those that the head can't reach; and the head, if it is the head that can't be reached."""
    head = stays[HEAD]
    if head.phase != "ready":
        return {}
    beside = [it for it in stays.values() if it.place != HEAD and it.phase == "ready"]
    found = {it.place: apart for it in beside if (apart := _apart(it, head, now_s)) is not None}
    of_head = [apart for it in beside if (apart := _apart(head, it, now_s)) is not None and not apart.is_paid]
    if len(of_head) == len(beside) > 1:
        found[HEAD] = Parted(max(it.since_s for it in of_head), is_paid=False)
    return found
