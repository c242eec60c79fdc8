"""Outputs against the last state: what was committed to is what comes, or it is seen that it isn't."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from clusterai.protocol.ids import Digest
from clusterai.protocol.leases import hidden_state
from clusterai.sandbox import BlobStore
from clusterai.sandbox.adapters.wasm import sample
from clusterai.work.batch.adapters import delivery, exchange, trees
from clusterai.work.batch.adapters.delivery import Differs, TooLarge
from clusterai.work.batch.adapters.ends import Ends
from clusterai.work.batch.adapters.exchange import Exchange, NotHad, part
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.batch.core.outcome import Performed
from clusterai.work.batch.core.pinned import decode_checkpoint
from clusterai.work.batch.core.tree import Entry, Tree, listing
from clusterai.work.batch.spec import Image, JobSpec, Resources
from tests.rooms.batch.conftest import MakeRoot

Work = tuple[JobSpec, Performed]


@pytest.fixture(scope="module")
def native(performer: Performer, base: Image, root: MakeRoot) -> Work:
    """Two files out of one, and nothing of the input."""
    script = "tr a-z A-Z < word > upper; mkdir more; cp word more/copy"
    argv = ("/bin/sh", "-c", script)
    spec = JobSpec(name="shout", check="pinned", image=base, argv=argv, inputs=(root(word="hello"),))
    done = asyncio.run(performer.perform(spec))
    assert done.ok, done.why
    return spec, done


@pytest.fixture(scope="module")
def module(performer: Performer, store: BlobStore) -> Work:
    """A file, and the same printed."""
    spec = JobSpec(
        name="sieve",
        check="wasm",
        image=Image("wasm", store.put(sample("sieve"))),
        argv=("8",),
        fuel=10**9,
        segments=20,
        resources=Resources(time_s=60),
        stdout=True,
    )
    done = asyncio.run(performer.perform(spec))
    assert done.ok, done.why
    return spec, done


@pytest.fixture(params=["native", "module"])
def work(request: pytest.FixtureRequest) -> Work:
    return request.getfixturevalue(request.param)


class Requester:
    """Somebody else's machine, with nothing on it but what the job was given."""

    def __init__(self, folder: Path, there: BlobStore) -> None:
        self.there = there
        self.store = BlobStore(folder / "here")
        self.ends = Ends(self.store)
        self.exchange = Exchange(self.store)
        self.hidden: set[Digest] = set()
        self.asked: set[Digest] = set()
        self.states: dict[Digest, Digest] = {}

    def ask(self, content: Digest, offset: int) -> None:
        self.asked.add(content)
        found = None if content in self.hidden else part(self.there, content, offset)
        if content in self.states and self.states[content] not in self.hidden:
            found = 32, bytes(self.states[content])
        if found is None:
            self.exchange.miss(content)
        else:
            self.exchange.take(content, offset, *found)

    def fetch(self, spec: JobSpec, last: Digest, output: Digest, most_bytes: int = 1 << 30) -> Tree:
        self.states = {hidden_state(last): last}
        one = delivery.fetch(self.ends, self.exchange, spec, hidden_state(last), output, self.ask, most_bytes)
        tree, state = asyncio.run(one)
        assert state == last
        return tree


@pytest.fixture
def requester(tmp_path: Path, store: BlobStore) -> Requester:
    return Requester(tmp_path, store)


def test_what_the_last_state_gives_comes_whole(requester: Requester, work: Work) -> None:
    """Every file, and only what was said to be needed."""
    spec, done = work
    tree = requester.fetch(spec, done.states[-1], done.output.digest())
    assert tree == done.output
    assert all(requester.store.read(digest) for digest, _ in tree.contents())
    named = delivery.kept(requester.ends, spec, done.states[-1], done.output.digest())
    assert requester.asked <= {hidden_state(done.states[-1]), *(digest for digest, _ in named)}


def test_any_missing_piece_is_missed(requester: Requester, work: Work) -> None:
    """The state, or a file that isn't in the state itself: whatever is held back, it isn't delivered."""
    spec, done = work
    last, output = done.states[-1], done.output.digest()
    files = [] if spec.check == "wasm" else [digest for digest, _ in done.output.contents()]
    for piece in [last, *files]:
        requester.hidden = {piece}
        with pytest.raises(NotHad, match="it isn't there"):
            requester.fetch(spec, last, output)


def _of(tree: Tree, change: Callable[[list[Entry]], list[Entry]]) -> Tree:
    """The listing with other files than the one that was printed."""
    printed = [it for it in tree.entries if it.path == "stdout"]
    return listing([*change([it for it in tree.entries if it.path != "stdout"]), *printed])


Lie = Callable[[list[Entry], BlobStore], list[Entry]]
LIES: list[Lie] = [
    lambda files, _: [msgspec.structs.replace(files[0], path="other"), *files[1:]],
    lambda files, _: files[1:],
    lambda files, store: [*files, Entry("too/much", "file", store.put(b"much"), 4)],
    lambda files, store: [msgspec.structs.replace(files[0], digest=store.put(b"false")), *files[1:]],
    lambda files, _: [msgspec.structs.replace(files[0], form="program"), *files[1:]],
]


@pytest.mark.parametrize("lie", LIES)
def test_other_outputs_are_seen(requester: Requester, work: Work, store: BlobStore, lie: Lie) -> None:
    """A false listing over right states, served whole: a name, a file too few or too many, another content or kind of file."""
    spec, done = work
    false = _of(done.output, lambda files: lie(files, store))
    trees.keep(false, store)
    with pytest.raises(Differs, match="was committed to"):
        requester.fetch(spec, done.states[-1], false.digest())


def test_no_listing_at_all_is_seen(requester: Requester, work: Work, store: BlobStore) -> None:
    """What was committed to is a digest of something else."""
    spec, done = work
    with pytest.raises(Differs):
        requester.fetch(spec, done.states[-1], store.put(b"no listing"))


def test_another_state_is_no_last_state(requester: Requester, work: Work, store: BlobStore) -> None:
    """Bytes that are no state, and a state of another job, give no outputs."""
    spec, done = work
    output = done.output.digest()
    with pytest.raises(Differs):
        requester.fetch(spec, store.put(b"nothing"), output)
    other = msgspec.structs.replace(spec, name="other", argv=("9",))
    with pytest.raises(Differs, match="a state of another job"):
        requester.fetch(other, done.states[-1], output)


def test_a_job_that_has_not_ended_owes_nothing(requester: Requester, work: Work, store: BlobStore) -> None:
    """A state in the middle gives the empty listing, and no other."""
    spec, done = work
    nothing = trees.keep(Tree(), store)
    assert requester.fetch(spec, done.states[0], nothing) == Tree()
    with pytest.raises(Differs):
        requester.fetch(spec, done.states[0], done.output.digest())


def test_what_is_too_large_is_not_taken(requester: Requester, work: Work) -> None:
    """It says nothing of the provider, and none of the files is asked for."""
    spec, done = work
    with pytest.raises(TooLarge, match="more than the 3 that are taken"):
        requester.fetch(spec, done.states[-1], done.output.digest(), 3)


def test_a_listing_beyond_the_jobs_disk_is_a_lie(
    requester: Requester, native: Work, store: BlobStore
) -> None:
    """Nobody can hide behind a size that no run could have left."""
    spec, done = native
    huge = trees.keep(listing([Entry("huge", "file", store.put(b"huge"), 2**40)]), store)
    state = msgspec.structs.replace(decode_checkpoint(store.read(done.states[-1], 4096)), tree=huge)
    with pytest.raises(Differs, match="more than the job can leave"):
        requester.fetch(spec, store.put(state.canonical()), huge, 10)


def test_silence_is_not_delivery(requester: Requester, native: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers: after so many tries it can't be had."""
    monkeypatch.setattr(exchange, "PATIENCE_S", 0.01)
    spec, done = native
    quiet = delivery.fetch(
        requester.ends,
        requester.exchange,
        spec,
        done.states[-1],
        done.output.digest(),
        lambda content, offset: None,
        1 << 30,
    )
    with pytest.raises(NotHad, match="nobody answers"):
        asyncio.run(quiet)
