"""Makes a failing seed easier to read: takes kinds of fault away for as long as it still fails."""

from collections.abc import Callable

from clusterai.runtime.simulator.faults import Fault


def shrink(kinds: tuple[Fault, ...], fails: Callable[[tuple[Fault, ...]], bool]) -> tuple[Fault, ...]:
    """The kinds that are needed: without any one of them nothing fails. `fails(kinds)` is known to be true.

    A run with one kind less is another run, so `fails` had better try a few seeds.
    """
    needed = kinds
    for kind in kinds:
        fewer = tuple(other for other in needed if other != kind)
        if fails(fewer):
            needed = fewer
    return needed
