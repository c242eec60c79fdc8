"""`kill -9` at every step: while something is played on chain, a process dies as soon as each move is seen there."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice

import msgspec

from tests.system.onchain import Onchain
from tests.system.running import Network

EVERY = "CLUSTERAI_EVERY"
"""Set in the environment: play all rounds, so that at each step each victim dies once. Else the first alone is played."""


class Step(msgspec.Struct, frozen=True):
    """A move: the nth event of a kind, or what can be seen elsewhere."""

    name: str
    kind: type | None = None
    nth: int = 1


class Killed(msgspec.Struct, frozen=True):
    step: str
    victim: str
    process: str


def rounds(steps: Sequence[Step], victims: Sequence[str]) -> list[list[str]]:
    """Who dies at which step, round by round: in all of them together each victim dies at each step once."""
    found = [list(islice(cycle(victims), at, at + len(steps))) for at in range(len(victims))]
    return found if os.environ.get(EVERY) else found[:1]


def run(
    network: Network,
    onchain: Onchain,
    lease: str,
    steps: Sequence[Step],
    victims: Sequence[str],
    process: Callable[[str], str],
    seen: Callable[[Step], object] | None = None,
) -> list[Killed]:
    """Kill through all steps in their order, as the chain shows them.

    Args:
        process: the name of the process that is this victim, as far as the chain tells by then.
        seen: waits for a step that is no event.
    """

    def wait(step: Step) -> object:
        if step.kind is not None:
            return onchain.until(lease, step.kind, step.nth)
        assert seen is not None
        return seen(step)

    return list(play(network, steps, victims, process, wait))


def play(
    network: Network,
    steps: Sequence[Step],
    victims: Sequence[str],
    process: Callable[[str], str],
    seen: Callable[[Step], object],
) -> Iterator[Killed]:
    """The same where nothing is on chain: `seen` waits for each step."""
    for step, victim in zip(steps, victims, strict=True):
        seen(step)
        name = process(victim)
        network.kill(name)
        yield Killed(step.name, victim, name)
