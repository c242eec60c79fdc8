"""What every kind of work that is paid by a lease must be able to say, so that its terms can be judged."""

from collections.abc import Callable
from typing import Any

import msgspec

from clusterai.protocol.leases import Terms


class LeasedKind(msgspec.Struct, frozen=True):
    """A kind of leased work, by the functions that differ between kinds.

    Attributes:
        name: what `StartLease.kind` carries.
        decode: canonical bytes to spec; raises `canonical.Malformed` for a stranger's nonsense.
        differs: (spec, terms) to why these terms aren't of that spec: its digests, class, segments, units. None where they are.
        billable_wei: (spec, compensation, units) to what may be asked for so many units.
    """

    name: str
    decode: Callable[[bytes], Any]
    differs: Callable[[Any, Terms], str | None]
    billable_wei: Callable[[Any, int, int], int]
