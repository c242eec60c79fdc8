"""The sentinel's far end: its chains in a sandbox of their own, and what they came to.

They stand beside the tenant, not with it: a tenant who could stop them would make its machine's owner a thief. The chains' control group
gets only the time that the tenant's leaves, on the very cores that it rents: SCHED_IDLE alone would hold among their own kind only.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from clusterai.sandbox import Cell, Limits, NativeRunner, Root, RootFs, Task
from clusterai.work.cluster.adapters.processes import parent
from clusterai.work.cluster.core.raycluster import INSIDE

ANSWERS_S = 15.0

VALUE_BYTES = 32
MiB = 1 << 20


class SentinelGone(Exception):
    """The sentinel doesn't answer, or nonsense; the machine can't prove its time any more."""


class _Told(msgspec.Struct, frozen=True):
    links: tuple[int, ...]
    values: tuple[str, ...]


class Chains:
    """Made by `open`."""

    def __init__(self, cell: Cell, cores: int, limits: Limits) -> None:
        self.cell = cell
        self._limits = limits
        self._cores = cores
        self._begun = False
        self._one = asyncio.Lock()

    @classmethod
    async def open(cls, runner: NativeRunner, root: Root, python: str, cores: Sequence[int]) -> "Chains":
        """
        Args:
            python: inside of `root`; nothing but its standard library is used.

        Raises:
            CannotSandbox.
        """
        limits = Limits(
            memory_bytes=(64 + 16 * len(cores)) * MiB,
            cpu_milli=1000 * len(cores),
            processes=len(cores) + 4,
            disk_bytes=1 * MiB,
        )
        argv = (python, "-I", "-S", "-u", f"{INSIDE}/sentinel.py", *map(str, cores))
        task = Task(image=RootFs("ray"), argv=argv, limits=limits)
        return cls(await Cell.open(runner, task, root), len(cores), limits)

    async def turn(self, seed: bytes) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
        """Links and values of every core as they stand under the seed of the turn before; from now on they run under this one.

        Raises:
            SentinelGone.
        """
        async with self._one:
            try:
                self.cell.say(seed.hex().encode())
                if not self._begun:
                    self._begun = True
                    async with asyncio.timeout(ANSWERS_S):
                        await self._step_back()
                    return (0,) * self._cores, (bytes(VALUE_BYTES),) * self._cores
                async with asyncio.timeout(ANSWERS_S):
                    told = msgspec.json.decode(await self.cell.hear(), type=_Told)
                values = tuple(bytes.fromhex(it) for it in told.values)
            except (OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
                raise SentinelGone(f"the sentinel doesn't answer: {str(error) or 'too slow'}") from None
        if len(told.links) != self._cores or len(values) != self._cores:
            raise SentinelGone("the sentinel told of other cores")
        if any(len(it) not in (0, VALUE_BYTES) for it in values) or min(told.links) < 0:
            raise SentinelGone("the sentinel told nonsense")
        return told.links, tuple(it or bytes(VALUE_BYTES) for it in values)

    async def _step_back(self) -> None:
        """The chains, once they run, behind the tenant. Not what answers for them: a busy tenant would keep it from answering."""
        chains: list[int] = []
        while len(chains) < self._cores:
            await asyncio.sleep(0.005)
            if self.cell.ended.done():
                raise OSError("it ended")
            parents = {pid: parent(pid) for pid in self.cell.group.processes()}
            chains = [pid for pid, its in parents.items() if parents.get(its) == self.cell.pid]
        for pid in chains:
            self.cell.yields(pid, self._limits)

    async def close(self) -> None:
        await self.cell.close()
