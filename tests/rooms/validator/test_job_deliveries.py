"""What a validator collects where outputs are demanded: whole and the last state's, from whom it asked, and gone with the lease."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterai.audit.adapters.sealing import SealKey, seal
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.jobs import AskContent, ContentMissing, ContentPart, SealedPart, Segment
from clusterai.protocol.leases import hidden_state
from clusterai.sandbox import BlobStore
from clusterai.validator.adapters import jobdeliveries
from clusterai.validator.adapters.jobdeliveries import Deliveries
from clusterai.validator.core.jobdelivery import Collect, Pass
from clusterai.work.batch.adapters import exchange, trees
from clusterai.work.batch.adapters.exchange import part
from clusterai.work.batch.core.pinned import Checkpoint
from clusterai.work.batch.core.tree import Entry, listing
from clusterai.work.batch.spec import Image, JobSpec

LEASE = Digest(b"\x11" * 32)
GATEWAY, OTHER, PROVIDER = Address(b"\x01" * 20), Address(b"\x02" * 20), Address(b"\x03" * 20)
SPEC = JobSpec(name="job", check="pinned", image=Image("base", b"\x07" * 32, "python"), argv=("true",))
FILES = {"a.txt": b"first", "more/b.txt": b"second"}


class Provider:
    """A job that was done, and a network that carries what is asked for; `through` and `sender` are where its answers come from."""

    def __init__(self, folder: Path) -> None:
        self.store = BlobStore(folder / "there")
        files = [Entry(path, "file", self.store.put(data), len(data)) for path, data in FILES.items()]
        self.output = trees.keep(listing(files), self.store)
        state = Checkpoint(SPEC.digest(), 1, 1, 0, self.output)
        self.last = self.store.put(state.canonical())
        self.box = SealKey.fresh()
        self.through, self.sender = GATEWAY, PROVIDER
        self.deliveries = Deliveries(folder / "delivered", self.box, self._asks)
        self.folder = folder / "delivered" / LEASE.hex()

    def _asks(self, gateway: Address, provider: Address, lease: Digest) -> Callable[[Digest, int], object]:
        def ask(content: Digest, offset: int) -> None:
            found = part(self.store, content, offset)
            if content == hidden_state(self.last):
                found = 32, bytes(self.last)
            if found is not None:
                total, data = found
                answer = SealedPart(lease, content, offset, total, seal(data, self.box.public))
                self.deliveries.take(self.through, self.sender, answer)

        return ask

    def collect(
        self, spec: JobSpec = SPEC, output: Digest | None = None, seal_to: bytes | None = None
    ) -> str:
        shown = Segment(spec.canonical(), bytes(32), (), self.last, 1, ())
        sealed = seal(canonical.encode(shown), seal_to or self.box.public)
        wanted = Collect(
            LEASE,
            GATEWAY,
            PROVIDER,
            SPEC.digest(),
            Digest(bytes(32)),
            1,
            hidden_state(self.last),
            output or self.output,
            sealed,
        )
        return asyncio.run(self.deliveries.collect(wanted)).verdict

    def give(self, content: Digest) -> ContentPart | ContentMissing:
        ask = AskContent(LEASE, content, 0)
        return self.deliveries.give(Pass(GATEWAY, ask, SPEC.canonical(), self.last, self.output))


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Provider:
    monkeypatch.setattr(exchange, "PATIENCE_S", 0.01)
    return Provider(tmp_path)


def test_what_was_had_is_passed_on_and_nothing_else(provider: Provider) -> None:
    """The requester gets the state, the listing and each file; of other content on this machine, nothing."""
    assert provider.collect() == "had"
    wanted = [provider.last, provider.output, *map(provider.store.put, FILES.values())]
    for content in wanted:
        given = provider.give(content)
        assert isinstance(given, ContentPart)
        assert given.data == provider.store.read(content)
    named = provider.give(hidden_state(provider.last))
    assert isinstance(named, ContentPart)
    assert named.data == provider.last
    other = BlobStore(provider.folder).put(b"of another lease")
    assert isinstance(provider.give(other), ContentMissing)


def test_before_it_is_had_nothing_is_given(provider: Provider) -> None:
    """And what can't be opened gives nothing either."""
    assert isinstance(provider.give(provider.output), ContentMissing)


def test_parts_from_elsewhere_are_not_taken(provider: Provider) -> None:
    """Whoever else carries relays to this validator can't spoil what it fetches."""
    provider.through = OTHER
    assert provider.collect() == "missing"
    provider.through, provider.sender = GATEWAY, OTHER
    assert provider.collect() == "missing"


def test_another_listing_differs(provider: Provider) -> None:
    """Also where it is served whole."""
    false = listing([Entry("a.txt", "file", provider.store.put(b"false"), 5)])
    assert provider.collect(output=trees.keep(false, provider.store)) == "differs"


def test_what_is_of_another_job_or_for_another_eye_is_nothing(provider: Provider) -> None:
    """A relay may carry anything: that isn't held against the provider as more than silence."""
    other = JobSpec(name="other", check="pinned", image=SPEC.image, argv=("false",))
    assert provider.collect(spec=other) == "missing"
    assert provider.collect(seal_to=SealKey.fresh().public) == "missing"


def test_a_full_store_says_nothing_of_the_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All demands together are bounded; what has no room is not reported."""
    monkeypatch.setattr(jobdeliveries, "CONTENT_BYTES", 100)
    assert Provider(tmp_path).collect() == "unable"


def test_it_goes_with_the_lease(provider: Provider) -> None:
    """Nothing is left on disk, and there is room again."""
    assert provider.collect() == "had"
    assert provider.folder.exists()
    provider.deliveries.drop(LEASE)
    assert not provider.folder.exists()
    assert provider.collect() == "had"
