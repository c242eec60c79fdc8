"""The hands of the desk for jobs: its driver and journal, content in and out, and what the chain told of each lease.

JobPages ── ask ──> Leasing ── Driver(JobDesk) ──┬── chain's outbox
                                                 ├── links: StartLease, content
                                                 ├── the Meter's tabs
                                                 └── Story: events for followers
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from clusterai.audit.core.segments import rate_ppm
from clusterai.gateway.adapters.jobs.story import Story
from clusterai.gateway.core import jobstate
from clusterai.gateway.core.jobdesk import JobDesk
from clusterai.gateway.core.jobstate import Answer, DeskTerms, Fetch, Fetched, Job, Note, Slot
from clusterai.gateway.core.tabs import ChargeTab, CloseTab, ItemPaid, OpenTab, TabIs
from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Mined, Reverted, Submit
from clusterai.market.core.directory import Directory
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.jobs import (
    AskContent,
    AskLog,
    Broken,
    ContentMissing,
    ContentPart,
    Done,
    JobFrame,
)
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import CloseReason
from clusterai.runtime.adapters.driver import Driver
from clusterai.runtime.adapters.journal import SqliteJournal
from clusterai.runtime.machine import Linked, Received, Send, Unlinked
from clusterai.sandbox import SPARE_BYTES, BlobStore, Damaged, NoSuchBlob, Quota, StoreFull
from clusterai.work.batch.adapters import delivery, trees
from clusterai.work.batch.adapters.delivery import Differs, TooLarge
from clusterai.work.batch.adapters.ends import Ends
from clusterai.work.batch.adapters.exchange import Exchange, NotHad, part
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.spec import JobSpec

OWN_KEYS = "lease-"
MOST_OUTPUT_BYTES = 16 * 1024**3
MOST_STEPS = 200
LOG_AGAIN_S = 5.0
"""The same piece of a log isn't asked for sooner again, unless its link came up."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("jobs")


class Happened(msgspec.Struct, frozen=True):
    """One event of the chain about a lease, with when it stood there."""

    event: Any
    at_s: int
    block: int


class Leasing:
    """One gateway's jobs. `send` gives a frame to a peer, `submit` a call to the chain, `till` an event to the Meter."""

    def __init__(
        self,
        folder: Path,
        terms: DeskTerms,
        synchronous: Literal["NORMAL", "FULL"],
        send: Callable[[Address, Any], object],
        submit: Callable[[Submit], None],
        till: Callable[[Any], None],
        content_bytes: int,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.store = BlobStore(folder / "content", Quota(content_bytes, SPARE_BYTES))
        self.story = Story(folder / "story.db")
        self._exchange = Exchange(self.store)
        self._send, self._submit, self._till = send, submit, till
        self._journal = SqliteJournal(folder / "journal.sqlite", synchronous)
        self._rows: defaultdict[Address, int] = defaultdict(int)
        self._ends = Ends(self.store)
        self._sources: dict[Digest, Address] = {}
        """who was asked last for a lease's outputs; nobody else is heard about them"""
        self.desk = JobDesk(terms, Directory(), lambda provider: self._rows[provider])
        self.driver = Driver(self.desk, self._journal, self._perform)
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._asked_logs: dict[tuple[Digest, str], tuple[int, asyncio.TimerHandle]] = {}
        self.chain: dict[Digest, list[Happened]] = {}
        self.beacons: dict[int, Digest] = {}
        self.rates: dict[Digest, int] = {}
        self._providers: dict[Digest, Address] = {}
        self._audited: set[Digest] = set()
        self._convicted: dict[Address, Digest] = {}

    def close(self) -> None:
        for key in [*self._asked_logs]:
            self._asked(*key)
        for task in self._tasks:
            task.cancel()
        self._journal.close()
        self.story.close()

    # --- in ---

    def hear(self, event: Any) -> bool:
        """Take an event; whether it was of no concern to anyone else."""
        match event:
            case Mined(key) | Reverted(key):
                if not key.startswith(OWN_KEYS):
                    return False
                self.driver.handle(event)
                return True
            case TabIs() | ItemPaid():
                self.driver.handle(event)
                return True
            case Received(peer, frame):
                if not isinstance(frame, JobFrame):
                    return False
                self._frame(peer, frame)
                return True
            case Linked() | Unlinked():
                self.driver.handle(event)
                if isinstance(event, Linked):
                    for lease in self.desk.under_way(event.peer):
                        self._ask_logs(lease)
                return False
            case _:
                self._chain(event)
                return False

    def _frame(self, peer: Address, frame: JobFrame) -> None:
        match frame:
            case ContentPart(lease, content, offset, total, data):
                if self._sources.get(Digest(lease)) == peer:
                    self._exchange.take(Digest(content), offset, total, data)
            case ContentMissing(lease, content):
                if self._sources.get(Digest(lease)) == peer:
                    self._exchange.miss(Digest(content))
            case AskContent(lease, content, offset):
                found = None
                if self._may_have(peer, Digest(lease), Digest(content)):
                    found = part(self.store, Digest(content), offset)
                if found is None:
                    self._send(peer, ContentMissing(lease, content))
                else:
                    self._send(peer, ContentPart(lease, content, offset, *found))
            case _:
                self.driver.handle(Received(peer, frame))
                if isinstance(frame, Done | Broken) and self._is_of(peer, Digest(frame.lease)):
                    # Its last words may have been lost.
                    self._ask_logs(Digest(frame.lease))

    def _ask_logs(self, lease: Digest) -> None:
        """What of both streams hasn't come."""
        for stream in ("stdout", "stderr"):
            self._ask_log(lease, stream, self.story.logged(lease, stream), again=True)

    def _ask_log(self, lease: Digest, stream: str, start: int, again: bool = False) -> None:
        """For one piece; the answer to it asks for the next. Where none comes it is asked for again, as long as the lease is open."""
        asked = self._asked_logs.get((lease, stream))
        if asked is not None and asked[0] == start and not again:
            return
        self._asked(lease, stream)
        found = self._slot(lease)
        if found is None or found[1].terms is None or found[1].closed is not None:
            return
        timer = asyncio.get_running_loop().call_later(LOG_AGAIN_S, self._ask_log, lease, stream, start, True)
        self._asked_logs[lease, stream] = (start, timer)
        self._send(Address(found[1].terms.provider), AskLog(lease, stream == "stderr", start))

    def _asked(self, lease: Digest, stream: str) -> None:
        """Nothing of that stream is waited for."""
        if (asked := self._asked_logs.pop((lease, stream), None)) is not None:
            asked[1].cancel()

    def _is_of(self, peer: Address, lease: Digest) -> bool:
        found = self._slot(lease)
        return found is not None and found[1].terms is not None and found[1].terms.provider == peer

    def _may_have(self, peer: Address, lease: Digest, content: Digest) -> bool:
        """A provider gets the inputs of its own lease, and nothing else that lies here."""
        found = self.desk.order_of(lease)
        return found is not None and found[0] == peer and content in self.inputs(found[1])

    def inputs(self, spec: JobSpec) -> set[Digest]:
        """All content that a spec names, as far as it lies here."""
        found: set[Digest] = set()
        if spec.image.form in ("wasm", "tar"):
            found.add(Digest(spec.image.digest))
        for root in spec.inputs:
            found.add(Digest(root.digest))
            try:
                found |= {digest for digest, _ in trees.load(root.digest, self.store).contents()}
            except (NoSuchBlob, Damaged, Malformed):
                continue
        return found

    def _chain(self, event: Any) -> None:
        lease = getattr(event, "lease", None)
        match event:
            case events.BeaconRecorded(round_number, beacon):
                self.beacons[round_number] = beacon
            case events.LeaseOpened(lease_id, _, provider):
                self._providers[lease_id] = provider
            case events.LeaseCommitted(lease_id):
                self._rate(lease_id)
            case events.AuditMatched(lease_id):
                self._audited.add(lease_id)
            case events.LeaseClosed(lease_id, reason):
                provider = self._providers.pop(lease_id, None)
                if provider is not None and lease_id in self._audited and reason == 1:
                    self._rows[provider] += 1
                elif provider is not None and reason in (5, 6, 7, 8, 9, 10):
                    self._rows[provider] = 0
                self._audited.discard(lease_id)
                if provider is not None and reason in (CloseReason.FRAUD, CloseReason.WITHHELD):
                    self._convicted[provider] = lease_id
            case events.Slashed(owner):
                # In the same transaction, and for this lease.
                lease = self._convicted.pop(owner, None)
            case _:
                pass
        if lease is not None and self._slot(lease) is not None:
            told = self.chain.setdefault(lease, [])
            if len(told) < MOST_STEPS:
                told.append(Happened(event, self.desk.directory.time_s, self.desk.directory.block + 1))
        self.driver.handle(event)

    def _rate(self, lease: Digest) -> None:
        """The rate that the chain gave a commitment, from what it went by at that moment."""
        found = self._slot(lease)
        if found is not None and found[1].terms is not None and found[1].terms.determinism:
            terms, desk = found[1].terms, self.desk
            provider = Address(terms.provider)
            stake = desk.directory.stake(provider)
            pay = terms.compensation_wei
            self.rates[lease] = rate_ppm(desk.placing.rules, stake, pay, self._rows[provider])

    # --- out ---

    def _perform(self, effect: Any) -> None:
        match effect:
            case Submit():
                self._submit(effect)
            case Send(to, frame):
                self._send(to, frame)
            case OpenTab() | ChargeTab() | CloseTab():
                self._till(effect)
            case Note():
                lacks = self.story.tell(effect)
                if lacks is not None:
                    self._ask_log(effect.lease, effect.stream, lacks)
                elif effect.kind == "log":
                    self._asked(effect.lease, effect.stream)
            case jobstate.Forgotten(job, leases):
                self.story.forget(job, leases)
                for lease in leases:
                    self.chain.pop(lease, None)
                    self.rates.pop(lease, None)
                    self._sources.pop(lease, None)
            case Answer(name):
                if (waiting := self._waiting.pop(name, None)) is not None and not waiting.done():
                    waiting.set_result(effect)
            case Fetch():
                task = asyncio.get_running_loop().create_task(self._fetch(effect))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case _:
                raise AssertionError(f"nobody performs {effect!r}")

    async def _fetch(self, effect: Fetch) -> None:
        """The outputs, from whoever is said to have them: what has another digest doesn't come in."""
        found = self._slot(effect.lease)
        assert found is not None, "the desk fetches what it knows"
        job, slot = found
        self._sources[effect.lease] = effect.source

        def ask(content: Digest, offset: int) -> object:
            return self._send(effect.source, AskContent(effect.lease, content, offset))

        spec = job.array.task(slot.task)
        verdict, why = "here", ""
        try:
            tree, _ = await delivery.fetch(
                self._ends, self._exchange, spec, effect.last, effect.output, ask, MOST_OUTPUT_BYTES
            )
            self.story.own(job.account, [effect.output, *(it for it, _ in tree.contents())])
        except NotHad as error:
            verdict, why = "missing", str(error)
        except Differs as error:
            verdict, why = "differs", f"its outputs aren't those of its last state: {error}"
        except (TooLarge, StoreFull, NoSuchBlob, Damaged, Malformed) as error:
            verdict, why = "unable", str(error)
        if why:
            log.warning("output_" + verdict, lease=effect.lease.hex(), why=why)
        self.driver.handle(Fetched(effect.lease, verdict, why))

    def _slot(self, lease: Digest) -> tuple[Job, Slot] | None:
        return self.desk.slot_of(lease)

    # --- what pages ask ---

    async def submit(self, account: Digest, array: bytes, wishes: Wishes, key: str) -> Answer:
        """Take a job on; the same key again gives the same job."""
        nonce = Digest(keccak(account + key.encode())) if key else Digest(secrets.token_bytes(32))
        name = secrets.token_hex(8)
        waiting = self._waiting[name] = asyncio.get_running_loop().create_future()
        self.driver.handle(jobstate.Ask(name, account, array, wishes, nonce))
        try:
            async with asyncio.timeout(30):
                return await waiting
        finally:
            self._waiting.pop(name, None)

    def cancel(self, job: Digest) -> None:
        self.driver.handle(jobstate.Cancel(job))

    def beacon(self, round_number: int) -> Digest:
        return self.beacons.get(round_number, ZERO_DIGEST)
