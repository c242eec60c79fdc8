"""What somebody who has nothing fetches to run a segment again: what the state and the spec name, and nothing that a stranger adds."""

import asyncio
from pathlib import Path

import pytest

from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore
from clusterai.sandbox.adapters.wasm import sample
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.adapters.needs import MOST_BEGIN_BYTES, needs
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.batch.core.pinned import Checkpoint
from clusterai.work.batch.core.tree import Entry, listing
from clusterai.work.batch.spec import Image, JobSpec, Resources, Root


def native(store: BlobStore) -> tuple[JobSpec, Digest]:
    """A job of two inputs, and a state of it that lists three files."""
    given = [Entry(f"in-{n}", "file", store.put(b"%d" % n * 100), 100) for n in range(2)]
    folder = listing(given)
    root = Root(trees.keep(folder, store), 2, 200)
    spec = JobSpec(
        name="native",
        check="pinned",
        image=Image("base", b"\x05" * 32, "python"),
        argv=("/bin/true",),
        inputs=(root,),
        segments=4,
        resources=Resources(time_s=60),
    )
    made = listing([*given, Entry("made", "file", store.put(b"made" * 1000), 4000)])
    state = Checkpoint(spec.digest(), 1, 1, 75, trees.keep(made, store))
    return spec, store.put(state.canonical())


def walk(spec: JobSpec, state: Digest, there: BlobStore, here: BlobStore) -> list[Digest]:
    """As an auditor does it: fetch what is lacking until nothing is."""
    fetched: list[Digest] = []
    for _ in range(10):
        lacking = {it: most for it, most in needs(spec, state, here).items() if it not in here}
        for content, most in lacking.items():
            data = there.read(content)
            assert len(data) <= most
            here.put(data)
            fetched.append(content)
        if not lacking:
            return fetched
    raise AssertionError("it never ends")


def test_a_native_state_is_had_listing_by_listing(tmp_path: Path) -> None:
    """Checkpoint, its listing, the inputs' listing, three files: six things, each once, whatever else lies there."""
    there, here = BlobStore(tmp_path / "there"), BlobStore(tmp_path / "here")
    spec, state = native(there)
    there.put(b"of no use" * 1000)
    fetched = walk(spec, state, there, here)
    assert len(fetched) == len(set(fetched)) == 6
    assert set(needs(spec, state, here)) == set(fetched) == set(needs(spec, state, there))


@pytest.mark.parametrize("raw", [b"", b"no checkpoint", b"x" * 5000])
def test_what_is_no_state_names_nothing(tmp_path: Path, raw: bytes) -> None:
    """Running it says what it is; for that nothing but the inputs is fetched."""
    there, here = BlobStore(tmp_path / "there"), BlobStore(tmp_path / "here")
    spec, _ = native(there)
    state = there.put(raw)
    here.put(raw)
    assert len(walk(spec, state, there, here)) == 3


def test_a_module_runs_again_from_what_it_needs(tmp_path: Path) -> None:
    """State and module are enough, and each is bounded before it comes."""
    there, here = BlobStore(tmp_path / "there"), BlobStore(tmp_path / "here")
    spec = JobSpec(
        name="sieve",
        check="wasm",
        image=Image("wasm", there.put(sample("sieve"))),
        argv=("4",),
        fuel=10**9,
        segments=20,
        resources=Resources(time_s=60),
    )
    done = asyncio.run(Performer(there, tmp_path / "ran").perform(spec))
    assert set(walk(spec, done.states[2], there, here)) == {done.states[2], spec.image.digest}
    assert max(needs(spec, done.states[2], here).values()) <= MOST_BEGIN_BYTES
    again = asyncio.run(Performer(here, tmp_path / "again").rerun(spec, done.states[2]))
    assert again.state == done.states[3]
