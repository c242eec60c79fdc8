"""From booked to running: one line for each step of each machine, as it happens."""

import time
from collections.abc import Callable

from clusterai.cli import say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.renting.named import short
from clusterai.cli.renting.show import WHY, steps
from clusterai.sdk import ApiError, Unreachable
from clusterai.sdk.rentals import Rentals
from clusterai.sdk.rentalshapes import Rental

LOOK_S = 0.2
LONGEST_S = 200.0
"""The gateway gives up before: machines that never come up together end a rental after 180 s."""
AWAY_S = 45.0
"""A gateway that was started anew is back by then, also on a busy machine."""
WORDS = {
    "opening": "is asked",
    "opened": "has its sandbox and its key; Ray starts",
    "ready": "is ready",
    "lost": "is lost; another is sought",
}


class Steps:
    """What was told of each machine, so that each step is told once."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: dict[int, tuple[int, str]] = {}
        self._noted = 0

    def look(self, it: Rental) -> None:
        for machine in it.machines:
            if self._told.get(machine.place) == (machine.generation, machine.phase):
                continue
            self._told[machine.place] = machine.generation, machine.phase
            took = f" ({steps(machine)})" if machine.phase == "ready" and machine.steps_ms else ""
            self._tell(f"machine {machine.place} {machine.node[:10]} {WORDS[machine.phase]}{took}")
        for note in it.notes[self._noted :]:
            if note.what in ("lost", "refused", "clock", "stolen", "parted", "memory", "cards"):
                self._tell(
                    f"{note.what}: {''.join(it for it in note.detail if it.isprintable())}".replace(
                        "[", r"\["
                    )
                )
        self._noted = len(it.notes)


class EndedFirst(Failure):
    """A rental ended before it ran."""


def until_running(
    rentals: Rentals,
    it: Rental,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Rental:
    """
    Raises:
        EndedFirst: it ended instead, with its reason. Failure: it takes too long, and may come up yet. Unreachable: the gateway stays away.
    """
    seen = Steps(say.say)
    began_s, heard_s = clock(), clock()
    while True:
        seen.look(it)
        if it.state in ("running", "paused"):
            return it
        if it.state == "ended":
            words = WHY.get(it.why, it.why)
            raise EndedFirst(
                f"rental {short(it)} didn't come up: {words}", it.detail, f"clusterai rent show {short(it)}"
            )
        if clock() - began_s > LONGEST_S:
            raise Failure(
                f"rental {short(it)} isn't running after {LONGEST_S:.0f} s",
                "nothing is charged until it runs",
                f"clusterai rent show {short(it)}, or clusterai rent release {short(it)}",
            )
        pause(LOOK_S)
        try:
            it = rentals.show(it.id)
            heard_s = clock()
        except (Unreachable, ApiError) as error:
            # A gateway that restarts knows the rental.
            if clock() - heard_s > AWAY_S or (isinstance(error, ApiError) and error.status < 500):
                raise


def ended(it: Rental) -> Exit:
    return Exit.OK if it.why in ("released", "over") else Exit.FAILED
