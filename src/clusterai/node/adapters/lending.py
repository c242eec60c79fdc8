"""The half of a node that lends to jobs: its book with a journal and a driver of its own, beside the half that answers requests.

It hears the chain and the links as the other half does, and takes for itself what concerns leases alone.
"""

from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Literal

import structlog

from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.market.core.directory import Directory
from clusterai.node.adapters.jobs import Jobs
from clusterai.node.config import JobsConfig
from clusterai.node.core import jobdefence, joblease
from clusterai.node.core.jobbook import JobBook
from clusterai.node.core.joblease import JobTerms
from clusterai.node.core.jobshowing import Serve, ServePart
from clusterai.node.core.leases import Drain, Paused
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address
from clusterai.protocol.jobs import StartLease
from clusterai.protocol.signing import recover
from clusterai.runtime.adapters.driver import Driver
from clusterai.runtime.adapters.journal import SqliteJournal
from clusterai.runtime.adapters.link import LinkClient
from clusterai.runtime.machine import Linked, Received, Send
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.batch.kind import BATCH

OWN_KEYS = "lease-"
"""What the keys of its calls begin with."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("lending")


class Lending:
    """One node's lending. `submit` hands a call to the chain's outbox."""

    def __init__(
        self,
        config: JobsConfig,
        folder: Path,
        me: Address,
        domains: tuple[Domain, Domain],
        window_s: int,
        synchronous: Literal["NORMAL", "FULL"],
        send: Callable[[Address, Any], object],
        submit: Callable[[Submit], None],
        clock: Callable[[], float],
        secret: bytes,
        confirmations: int = 0,
        performs: type[Performer] = Performer,
    ) -> None:
        """
        Args:
            domains: of Leases, and of the network.
            secret: the hot key's, under which the volumes' keys are kept.
            confirmations: blocks that must stand above a lease's end before its volume goes.

        Raises:
            WrongKey.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._send = send
        self._submit = submit
        self._peers: Callable[[], Iterable[Address]] = tuple
        self.jobs = Jobs(config, folder, me, self._tell, send, secret, performs)
        leases, network = domains
        terms = JobTerms(
            me,
            leases,
            network,
            window_s,
            recover,
            self.jobs.fits,
            confirmations=confirmations,
            takes_bait=config.bait,
        )
        self._journal = SqliteJournal(folder / "journal.sqlite", synchronous)
        self.book = JobBook(terms, Directory(), {BATCH.name: BATCH})
        self.driver = Driver(self.book, self._journal, self._perform, clock)
        self.jobs.sweep(self.book)
        for kind, why in self.jobs.box.missing.items():
            log.warning("not_lent", images=kind, why=why)

    @property
    def running(self) -> int:
        """Jobs in work."""
        return self.jobs.running

    def chores(self, link: LinkClient) -> list[Coroutine[Any, Any, None]]:
        self._peers = link.peers
        return [self.driver.tick_forever(), self.jobs.tell(link.peers)]

    async def close(self) -> None:
        await self.jobs.close()
        self._journal.close()

    def hear(self, event: Any) -> bool:
        """Take an event; whether it was of no concern to anyone else."""
        match event:
            case Mined(key) | Reverted(key):
                if not key.startswith(OWN_KEYS):
                    return False
                self._tell(event)
                return True
            case Received(gateway, frame):
                if self.jobs.heard(gateway, frame, self.book):
                    return True
                self._tell(event)
                return isinstance(frame, StartLease)
            case Linked(gateway):
                self._send(gateway, self.jobs.lends())
            case Drain():
                self._tell(joblease.Drain())
                return False
            case Paused(why):
                self._tell(joblease.Paused(why))
                if self.jobs.is_paused != bool(why):
                    self.jobs.is_paused = bool(why)
                    for gateway in self._peers():
                        self._send(gateway, self.jobs.lends())
                return False
            case _:
                pass
        if type(event).__module__ not in _OTHERS:
            self._tell(event)
        return False

    def _tell(self, event: Any) -> None:
        self.driver.handle(event)

    def _perform(self, effect: Any) -> None:
        match effect:
            case Send(to, frame):
                self._send(to, frame)
            case Submit():
                self._submit(effect)
            case joblease.Perform():
                self.jobs.perform(effect)
            case joblease.Halt():
                self.jobs.halt(effect)
            case joblease.Discard():
                self.jobs.discard(effect, self.book)
            case Serve():
                self.jobs.serve(effect, self.book)
            case jobdefence.Retrace():
                self.jobs.retrace(effect)
            case ServePart():
                self.jobs.serve_part(effect, self.book)
            case _:
                raise AssertionError(f"nobody performs {effect!r}")


_OTHERS = frozenset(("clusterai.node.core.leases",))
"""Events of the other half."""
