"""Limits on what the node draws, set when it starts: processors, priority, and the power of GPUs.

What can't be set is said and doesn't keep the node from its work: a limit that needs root must not need a node as root.
"""

import os
from collections.abc import Callable

from clusterai.node.adapters import nvidia
from clusterai.node.adapters.nvidia import Gpu, NoDriver
from clusterai.node.config import PowerConfig


class PowerLimit:
    """`set` when the node begins, `undo` when it ends: a GPU's limit outlives the process that set it."""

    def __init__(
        self,
        config: PowerConfig,
        gpus: Callable[[], tuple[Gpu, ...]] = nvidia.gpus,
        limit: Callable[[Gpu, float], None] = nvidia.limit,
    ) -> None:
        self._config = config
        self._gpus = gpus
        self._limit = limit
        self._changed: list[Gpu] = []

    def set(self) -> list[str]:
        """What could not be limited, and why."""
        config = self._config
        troubles: list[str] = []
        if config.cores is not None:
            if hasattr(os, "sched_setaffinity"):
                own = sorted(os.sched_getaffinity(0))
                os.sched_setaffinity(0, own[: config.cores])
            else:
                troubles.append("cores: this system can't bind a process to processors")
        if config.nice:
            if hasattr(os, "setpriority"):
                # Lower than it is already, it may not be raised.
                os.setpriority(os.PRIO_PROCESS, 0, max(config.nice, os.getpriority(os.PRIO_PROCESS, 0)))
            else:
                troubles.append("nice: this system has no such priorities")
        if config.gpu_watts is not None:
            troubles += self._limited(float(config.gpu_watts))
        return troubles

    def _limited(self, watts: float) -> list[str]:
        try:
            gpus = self._gpus()
        except NoDriver as error:
            return [f"gpu_watts: {error}"]
        if not gpus:
            return ["gpu_watts: this machine has no NVIDIA GPU"]
        troubles: list[str] = []
        for gpu in gpus:
            if gpu.limit_w is None:
                troubles.append(f"gpu_watts: {gpu.name} has no power limit that can be set")
                continue
            wanted = min(max(watts, gpu.least_w or watts), gpu.most_w or watts)
            if wanted != watts:
                troubles.append(
                    f"gpu_watts: {gpu.name} takes {gpu.least_w:.0f} to {gpu.most_w:.0f} W: set to {wanted:.0f}"
                )
            try:
                self._limit(gpu, wanted)
                self._changed.append(gpu)
            except NoDriver as error:
                troubles.append(f"gpu_watts: {gpu.name}: {error}")
        return troubles

    def undo(self) -> None:
        while self._changed:
            gpu = self._changed.pop()
            if gpu.limit_w is not None:
                try:
                    self._limit(gpu, gpu.limit_w)
                except NoDriver:
                    continue  # whoever may set it may take it back; the driver went away
