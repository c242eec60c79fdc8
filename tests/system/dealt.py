"""`python -m tests.system.dealt`: the program `clusterai`, whose training runs deal vaults into groups by their names, alike in every run.

The beacon decides who sits beside whom, among keys that are new in every network. Dealt by chance, in some runs an honest vault sits beside the cheat too
often to be told from it. So beacons are drawn until one deals as the seed says; nothing else is changed, and vaults check what they always check.
"""

import random
from collections.abc import Sequence
from typing import Any

from blake3 import blake3

from clusterai.cli import main
from clusterai.protocol.ids import Address, Digest
from clusterai.vault.core.secagg import graph
from clusterai.work.training.adapters import rounds
from clusterai.work.training.spec import Done

SEED = 2


def beacon(number: int, names: dict[Address, str], count: int) -> bytes:
    """That deals these vaults as this round's draw deals their names."""
    order = sorted(names.values())
    random.Random(f"{SEED} {number}").shuffle(order)
    wanted = {frozenset(order[at::count]) for at in range(count)}
    tried = 0
    while True:
        found = blake3(f"{SEED} {number} {tried}".encode()).digest()
        groups = graph.groups(tuple(sorted(names)), found, count)
        if {frozenset(names[who] for who in group) for group in groups} == wanted:
            return found
        tried += 1


class DealtAlike(rounds.Rounds):
    def _begun_sums(
        self, number: int, length: int, among: Sequence[Digest], dones: dict[Digest, Done]
    ) -> tuple[Any, ...]:
        names = {self._member[who]: self._parties[who].name for who in dones}
        count = max(1, min(self.run.groups, len(dones) // rounds.LEAST_GROUP))
        rounds.drawn = lambda: beacon(number, names, count)
        return super()._begun_sums(number, length, among, dones)


if __name__ == "__main__":
    from clusterai.work.training.adapters import campaign

    campaign.Rounds = DealtAlike
    main.main()
