"""The part of a node that offers the machine to renters: its book with a journal and a driver of its own.

Others of this node say `withhold(cause, why)` while the machine mustn't be rented, and the same with no `why` when it may again.
"""

import platform
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

from clusterai.node.config import RentalsConfig
from clusterai.node.core.leases import Drain, Noted, Paused
from clusterai.node.core.offering import OfferBook, Withhold
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address
from clusterai.protocol.offering import OfferTurned
from clusterai.protocol.offers import MachineOffer, signed_digest
from clusterai.protocol.signing import Key
from clusterai.runtime.adapters.driver import Driver
from clusterai.runtime.adapters.journal import SqliteJournal
from clusterai.runtime.machine import Linked, Received, Send, Unlinked

CPUINFO = Path("/proc/cpuinfo")
LEVELS = (
    ("v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}),
    ("v2", {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
)
"""Of x86-64, by the processor's flags; each asks for those below it too."""


def hardware_class(cpuinfo: Path = CPUINFO) -> str:
    """What this machine's processor is called where equal work gives equal times."""
    machine = platform.machine().lower()
    if machine not in ("x86_64", "amd64"):
        return {"aarch64": "arm64"}.get(machine, machine)
    flags: set[str] = set()
    if cpuinfo.exists():
        line = next((it for it in cpuinfo.read_text().splitlines() if it.startswith("flags")), "")
        flags = set(line.partition(":")[2].split())
    for at, (level, _) in enumerate(LEVELS):
        if all(needed <= flags for _, needed in LEVELS[at:]):
            return f"x86-64-{level}"
    return "x86-64"


class Offering:
    """One node's offering; hears links, and says offers."""

    def __init__(
        self,
        config: RentalsConfig,
        path: Path,
        me: Address,
        key: Key,
        domain: Domain,
        synchronous: Literal["NORMAL", "FULL"],
        perform: Callable[[Send | Noted], None],
        clock: Callable[[], float],
    ) -> None:
        machine = MachineOffer(
            node=key.address,
            operator=me,
            serial=0,
            hardware=config.hardware or hardware_class(),
            cpu_milli=config.cpu_milli,
            memory_bytes=config.memory_bytes,
            gpu=config.gpu,
            gpus=config.gpus,
            region=config.region,
            bandwidth_kbps=config.bandwidth_kbps,
            price_wei=config.hour_wei,
            issued_s=0,
            expires_s=0,
            disk_bytes=config.disk_bytes,
            longest_s=config.longest_s,
        )
        self._journal = SqliteJournal(path, synchronous)
        self.book = OfferBook(machine, config.life_s, lambda it: signed_digest(it, domain), key.sign)
        self.driver = Driver(self.book, self._journal, perform, clock)

    def chores(self) -> list[Coroutine[Any, Any, None]]:
        return [self.driver.tick_forever()]

    def close(self) -> None:
        self._journal.close()

    def withhold(self, cause: str, why: str = "") -> None:
        self.driver.handle(Withhold(cause, why))

    def hear(self, event: Any) -> bool:
        """Take an event; whether it was of no concern to anyone else."""
        match event:
            case Linked() | Unlinked():
                self.driver.handle(event)
            case Received(_, OfferTurned()):
                self.driver.handle(event)
                return True
            case Paused(why):
                self.withhold("owner", why)
            case Drain():
                self.withhold("drain", "this provider shuts down")
            case _:
                pass
        return False
