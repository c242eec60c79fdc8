"""A node's lending on a real folder with real sandboxes, and a gateway and a chain that are told what to say."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Submit
from clusterai.ledger.core.lease_calls import CommitLease
from clusterai.node.adapters.lending import Lending
from clusterai.node.config import JobsConfig
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest
from clusterai.protocol.jobs import AskContent, Bait, Broken, ContentMissing, ContentPart, Done, StartLease
from clusterai.protocol.leases import Terms, leases_domain, trap_nonce
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.runtime.machine import Received
from clusterai.sandbox import BlobStore
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.adapters.base import host_base
from clusterai.work.batch.adapters.exchange import part
from clusterai.work.batch.core.tree import Entry, listing
from clusterai.work.batch.spec import DETERMINISM, Image, JobSpec, Resources, Root

ME, GATEWAY = Key(b"\x01" * 32).address, Key(b"\x02" * 32).address
DOMAINS = (leases_domain(1, ZERO_ADDRESS), network_domain(1, ZERO_ADDRESS))
NOW_S = 1_700_000_000
CONFIG = JobsConfig(memory_bytes=1 << 30, disk_bytes=64 << 20)


def every_byte(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """All that lies in a folder, names included."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, str(path).encode() + path.read_bytes()


class Bed:
    """One gateway's lease on one node. `content` is what the gateway has; `seen` all frames that it got."""

    def __init__(self, folder: Path, secret: bytes = b"hot", config: JobsConfig = CONFIG) -> None:
        self.folder = folder / "jobs"
        self.content = BlobStore(folder / "gateway")
        self.seen: list[Any] = []
        self.calls: list[Any] = []
        self.on_frame: Callable[[Any], object] = lambda _: None
        self.is_linked = True
        self._over = asyncio.Event()
        self.block = 0
        self.lending = Lending(
            config, self.folder, ME, DOMAINS, 10, "NORMAL", self._send, self._submit, lambda: NOW_S, secret
        )

    # --- what the node says ---

    def _send(self, to: Address, frame: Any) -> bool:
        assert to == GATEWAY
        if not self.is_linked:
            return False
        self.seen.append(frame)
        if isinstance(frame, Done | Broken):
            self._over.set()
        self.on_frame(frame)
        if isinstance(frame, AskContent):
            found = part(self.content, Digest(frame.content), frame.offset)
            reply = (
                ContentMissing(frame.lease, frame.content)
                if found is None
                else ContentPart(frame.lease, frame.content, frame.offset, *found)
            )
            asyncio.get_running_loop().call_soon(self.say, reply)
        return True

    def _submit(self, call: Submit) -> None:
        self.calls.append(call.call)

    # --- what it is told ---

    def say(self, frame: Any) -> None:
        self.lending.hear(Received(GATEWAY, frame))

    def chain(self, *happened: Any, after_s: int = 1) -> None:
        """Events of one block."""
        for event in happened:
            self.lending.hear(event)
        self.block += 1
        self.lending.hear(events.Block(self.block, NOW_S + self.block * after_s))

    def root(self, **content: str) -> Root:
        entries = [
            Entry(name.replace("_", "."), "file", self.content.put(text.encode()), len(text.encode()))
            for name, text in content.items()
        ]
        tree = listing(entries)
        trees.keep(tree, self.content)
        return Root(tree.digest(), len(tree.entries), tree.size)

    def spec(self, command: str, **changes: Any) -> JobSpec:
        spec = JobSpec(
            name="job",
            check="pinned",
            image=Image("base", host_base().digest(), "python"),
            argv=("sh", "-c", command),
            resources=Resources(memory_bytes=256 << 20, disk_bytes=16 << 20, time_s=60),
        )
        return msgspec.structs.replace(spec, **changes)

    def start(self, spec: JobSpec, bait: Bait | None = None) -> Digest:
        """The lease as the gateway brings it and the chain shows it, accepted."""
        terms = Terms(
            requester=GATEWAY,
            provider=ME,
            spec=spec.digest(),
            resources=spec.resources_digest(),
            input=spec.input_root(),
            expected=ZERO_DIGEST,
            determinism=DETERMINISM[spec.check],
            segments=spec.segments,
            units=spec.units(),
            compensation_wei=10**15,
            audit_fee_wei=0,
            start_by_s=NOW_S + 60,
            deadline_s=NOW_S + 600,
            nonce=Digest(bytes(32)) if bait is None else trap_nonce(Digest(bait.secret)),
        )
        lease = terms.lease_id(DOMAINS[0])
        self.chain()
        self.say(StartLease("batch", terms, spec.canonical(), bait))
        self.shown(terms)
        return lease

    def shown(self, terms: Terms) -> None:
        """The chain shows it opened and accepted; a node that was started again goes on with it."""
        lease = terms.lease_id(DOMAINS[0])
        self.lending.driver.start()
        self.chain(events.LeaseOpened(lease, GATEWAY, ME, terms))
        self.chain(events.LeaseAccepted(lease))

    async def over(self) -> Done | Broken:
        """When the gateway hears how it ended."""
        async with asyncio.timeout(120):
            await self._over.wait()
        (found,) = [it for it in self.seen if isinstance(it, Done | Broken)]
        return found

    async def done(self) -> Done:
        found = await self.over()
        assert isinstance(found, Done), found
        return found

    def commit(self, lease: Digest) -> None:
        (call,) = [it for it in self.calls if isinstance(it, CommitLease)]
        values: dict[str, Any] = {
            name: getattr(call, name, 0) for name in events.LeaseCommitted.__struct_fields__
        }
        values["lease"] = lease
        self.chain(events.LeaseCommitted(**values))

    def close(self, lease: Digest, reason: int = 1) -> None:
        self.chain(events.LeaseClosed(lease, reason, 1, 0))

    def gone(self) -> None:
        """Blocks until nothing of a closed lease can be asked for."""
        self.chain(after_s=100)
