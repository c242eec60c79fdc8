"""`python -m tests.system.falsetrainer --config FILE`: a node whose vaults cheat in training, where the run's configuration says so.

What a vault puts behind the mask is its own daemon's affair, so this is the daemon with that one step changed. A run in which it is to cheat says how
under the vault's name (`--run-config 'clinic-3="skips"'`); in all others it is honest.

    skips        sends an update of nothing                 exceeds      its update turned round, twenty times as long as the bound
    noise        as long as its update                      collapses    the way back to an empty model, as long as the bound
    replays      the first update that it sent in this run
"""

import sys
from typing import Any

import msgspec
import numpy as np

from clusterai.node import __main__ as node
from clusterai.work.training.adapters import hosting
from clusterai.work.training.core import vector

honest = hosting.host


class FalseTrainer(hosting.Training):
    async def _contribution(self, study: Any, request: Any, message: bytes, content: Any) -> Any:
        made = await super()._contribution(study, request, message, content)
        vault: Any = self.vault
        cheat = study.run.configured().get(vault.name, "")
        layout = vector.layout_of(content)
        if not request.training or layout is None or not cheat:
            return made
        values, size = made.vector.copy(), layout.size
        update = values[:size].astype(np.float64)
        match cheat:
            case "skips":
                update *= 0
            case "noise":
                # Across its update: in a model of a dozen parameters noise betters some rounds by chance, and earns that.
                noise = np.random.default_rng(request.number).normal(0, 1, size)
                noise -= update * (noise @ update) / max(1.0, update @ update)
                update = noise * np.linalg.norm(update) / np.linalg.norm(noise)
            case "exceeds":
                update *= -20 * vector.LEVELS / np.linalg.norm(update)
            case "collapses":
                way = -vector.flat(content[layout.record], layout) - 1e-6 * update
                update = way * (vector.LEVELS / np.linalg.norm(way))
            case "replays":
                update = self._first.setdefault(study.name, update)
            case _:
                raise AssertionError(cheat)
        values[:size] = np.rint(update).astype(np.int64)
        return msgspec.structs.replace(made, vector=values)

    @property
    def _first(self) -> dict[Any, Any]:
        return self.__dict__.setdefault("first_updates", {})


def host(vault: Any) -> hosting.Training:
    made = honest(vault)
    made.__class__ = FalseTrainer
    return made


if __name__ == "__main__":
    hosting.host = host
    sys.exit(node.main())
