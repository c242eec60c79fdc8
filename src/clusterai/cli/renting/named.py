"""Which rental is meant: its id, or as much of its beginning as no other has."""

from clusterai.cli.failure import Exit, Failure
from clusterai.sdk.rentals import Rentals
from clusterai.sdk.rentalshapes import Rental

DIGITS = 64
MOST_TOLD = 5


def find(rentals: Rentals, named: str) -> Rental:
    """
    Raises:
        Failure: none, several, or no id at all.
    """
    digits = named.strip().lower().removeprefix("0x")
    if not 1 <= len(digits) <= DIGITS or not all(it in "0123456789abcdef" for it in digits):
        raise Failure(f"{named[:80]!r} is no rental's id", "", "clusterai rent list", Exit.USAGE)
    if len(digits) == DIGITS:
        return rentals.show("0x" + digits)
    found = [it for it in rentals.list() if it.id.startswith("0x" + digits)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise Failure(
            f"this account has no rental {named}", "", "clusterai rent list --all", code=Exit.NOT_FOUND
        )
    first = ", ".join(it.id[:18] for it in found[:MOST_TOLD])
    raise Failure(f"{len(found)} rentals begin with {named}", first, "write more of its id", Exit.USAGE)


def short(rental: Rental) -> str:
    return rental.id[:12]
