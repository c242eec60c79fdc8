"""A machine's own log, piece by piece."""

import time
from collections.abc import Callable, Iterator

from clusterai.sdk import ApiError
from clusterai.sdk.rentals import Rentals
from clusterai.sdk.rentalshapes import Rental

LOOK_S = 1.0


def pieces(
    rentals: Rentals, it: Rental, place: int, follow: bool, pause: Callable[[float], None] = time.sleep
) -> Iterator[bytes]:
    """From its beginning, as far as it is kept; with `follow` until the rental ends.

    A machine that took another's place has a log of its own, which begins at 0 again.

    Raises:
        ApiError: it is over, or, unless followed, that machine doesn't answer.
    """
    start, generation = 0, it.machines[place].generation
    while True:
        is_more = False
        try:
            found = rentals.log(it.id, place, start)
        except ApiError as error:
            if follow and error.code == "ended":
                return
            if not follow or error.status < 500:
                raise
        else:
            if found.data:
                yield found.data
            start = found.start + len(found.data)
            is_more = bool(found.data) and start < found.total
        if is_more:
            continue
        if not follow:
            return
        pause(LOOK_S)
        it = rentals.show(it.id)
        if it.machines[place].generation != generation:
            start, generation = 0, it.machines[place].generation
