"""Cheats against audits, segment by segment: what each skips or invents, and which draws catch it. Honest runs always match.

A provider commits to states and units. The auditor is handed openings and blobs of the drawn segment and does it again. Every
segment is drawn here, so that the share of draws that catch a cheat is exact.
"""

import asyncio
import random

import msgspec
import pytest

from clusterai.audit.core.segments import Commitment, Opening
from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore
from clusterai.sandbox.adapters.wasm import sample
from clusterai.sandbox.core.state import decode_state
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.batch.core.outcome import Performed
from clusterai.work.batch.core.pinned import Checkpoint
from clusterai.work.batch.core.tree import Entry, Tree, listing
from clusterai.work.batch.spec import AGAIN, MIB, Image, JobSpec, Resources
from tests.rooms.batch.conftest import MakeRoot

T = 4
CODE = """
import clusterai_job as job, hashlib, pathlib
path = pathlib.Path("state")
value = path.read_bytes() if path.exists() else pathlib.Path("start.txt").read_bytes() + str(job.SEED).encode()
for _ in job.share(400):
    value = hashlib.sha256(value).digest()
path.write_bytes(value)
job.checkpoint()
"""


@pytest.fixture(scope="module")
def spec(base: Image, root: MakeRoot) -> JobSpec:
    return JobSpec(
        name="chain",
        check="pinned",
        image=base,
        argv=("python", "main.py"),
        inputs=(root(main_py=CODE, start_txt="s"),),
        segments=T,
        resources=Resources(memory_bytes=256 * MIB, disk_bytes=16 * MIB, time_s=600),
    )


@pytest.fixture(scope="module")
def honest(performer: Performer, spec: JobSpec) -> Performed:
    return asyncio.run(performer.perform(spec))


def verdicts(performer: Performer, spec: JobSpec, claim: Commitment) -> list[str]:
    """What every possible draw would find, segment 1 first."""

    return [verdict(performer, spec, claim, j) for j in range(1, claim.segments + 1)]


def verdict(performer: Performer, spec: JobSpec, claim: Commitment, j: int) -> str:
    opened = (claim.open(0), claim.open(j - 1), claim.open(j))
    return asyncio.run(performer.check(spec, claim.root, claim.segments, *opened)).verdict


def invented(store: BlobStore, spec: JobSpec, segment: int, content: str) -> Digest:
    """A state with made-up work, well formed."""
    tree = listing([Entry("state", "file", store.put(content.encode()), len(content))])
    trees.keep(tree, store)
    code = 0 if segment == T else AGAIN
    return store.put(Checkpoint(spec.digest(), segment, segment, code, tree.digest()).canonical())


def relabelled(store: BlobStore, spec: JobSpec, state: Digest) -> Digest:
    """Somebody else's state under this job's name."""
    from clusterai.work.batch.core.pinned import decode_checkpoint

    theirs = decode_checkpoint(store.read(state))
    return store.put(msgspec.structs.replace(theirs, job=spec.digest()).canonical())


def test_an_honest_provider_matches(performer: Performer, spec: JobSpec, honest: Performed):
    """Whatever is drawn."""
    assert honest.ok
    assert verdicts(performer, spec, honest.commitment()) == ["matched"] * T


def test_full_skip(performer: Performer, store: BlobStore, spec: JobSpec, honest: Performed):
    """Nothing was done: every draw catches it."""
    states = [honest.states[0], *(invented(store, spec, j, f"made up {j}") for j in range(1, T + 1))]
    assert verdicts(performer, spec, Commitment(states, (1,) * T)) == ["differs"] * T


def test_partial_skip(performer: Performer, store: BlobStore, spec: JobSpec, honest: Performed):
    """Half was done: half of the draws catch it."""
    states = [*honest.states[:3], *(invented(store, spec, j, f"made up {j}") for j in (3, 4))]
    assert verdicts(performer, spec, Commitment(states, (1,) * T)) == [
        "matched",
        "matched",
        "differs",
        "differs",
    ]


def test_one_skipped_segment(performer: Performer, store: BlobStore, spec: JobSpec, honest: Performed):
    """One segment's work is invented and the rest honestly built on it: only that draw catches it, as PROOF says."""
    false = invented(store, spec, 2, "made up")

    async def rest() -> list[Digest]:
        third = (await performer.rerun(spec, with_inputs(false))).state
        return [with_inputs(false), third, (await performer.rerun(spec, third)).state]

    def with_inputs(state: Digest) -> Digest:
        # The program itself must be in the folder for the rest to run.
        from clusterai.work.batch.core.pinned import decode_checkpoint
        from clusterai.work.batch.core.tree import overlay

        made = decode_checkpoint(store.read(state))
        tree = overlay([trees.load(spec.inputs[0].digest, store), trees.load(made.tree, store)])
        trees.keep(tree, store)
        return store.put(msgspec.structs.replace(made, tree=tree.digest()).canonical())

    states = [*honest.states[:2], *asyncio.run(rest())]
    assert verdicts(performer, spec, Commitment(states, (1,) * T)) == [
        "matched",
        "differs",
        "matched",
        "matched",
    ]


def test_an_altered_seed(performer: Performer, store: BlobStore, spec: JobSpec):
    """Another seed's work under this job's name: wherever the seed matters, and here that is in the first segment; the rest follows
    from it, so only the start gives it away."""
    other = asyncio.run(performer.perform(msgspec.structs.replace(spec, seed=99)))
    states = [relabelled(store, spec, state) for state in other.states]
    assert verdicts(performer, spec, Commitment(states, other.units)) == [
        "differs",
        "matched",
        "matched",
        "matched",
    ]
    assert verdicts(performer, spec, other.commitment()) == ["start"] * T


def test_a_result_copied_from_elsewhere(
    performer: Performer, store: BlobStore, spec: JobSpec, honest: Performed, root: MakeRoot
):
    """The states of a job with another input begin with another state, which every draw shows; and where the first is put right, the
    draw of the next."""
    other = asyncio.run(
        performer.perform(msgspec.structs.replace(spec, inputs=(root(main_py=CODE, start_txt="x"),)))
    )
    copied = [relabelled(store, spec, state) for state in other.states]
    assert verdicts(performer, spec, Commitment(copied, other.units)) == ["start"] * T
    states = [honest.states[0], *copied[1:]]
    assert verdicts(performer, spec, Commitment(states, other.units))[0] == "differs"
    states = [honest.states[0], *other.states[1:]]
    assert verdicts(performer, spec, Commitment(states, other.units)) == ["differs"] * T


def test_an_overstated_meter(performer: Performer, spec: JobSpec, honest: Performed):
    """Units that the work didn't take: the draw of that segment finds it though its state is right."""
    assert verdicts(performer, spec, Commitment(honest.states, (1, 5, 1, 1))) == [
        "matched",
        "units",
        "matched",
        "matched",
    ]


def test_segments_that_never_were(performer: Performer, store: BlobStore, spec: JobSpec, honest: Performed):
    """More states than the program made, to be paid for more: nothing follows an end, so each surplus one is found."""
    end = honest.states[-1]
    longer = Commitment([*honest.states, end, end], (1,) * (T + 2))
    assert verdicts(performer, spec, longer) == ["matched"] * T + ["differs"] * 2


def test_a_wrong_opening(performer: Performer, spec: JobSpec, honest: Performed):
    """Something else than what was committed to, or another segment than the drawn one, opens nothing."""
    claim = honest.commitment()
    before, after = claim.open(0), claim.open(1)
    forged = msgspec.structs.replace(after, state=honest.states[2])

    def check(one: Opening, two: Opening) -> str:
        return asyncio.run(performer.check(spec, claim.root, T, claim.open(0), one, two)).verdict

    assert check(before, forged) == "unopened"
    assert check(before, claim.open(2)) == "unopened"
    assert check(before, msgspec.structs.replace(after, units=2)) == "unopened"
    assert check(before, after) == "matched"


def test_a_withheld_state(performer: Performer, store: BlobStore, spec: JobSpec, honest: Performed):
    """An auditor who isn't given the state before can't judge, and says so instead of accusing."""
    unknown = [*honest.states[:1], Digest(bytes([7] * 32)), *honest.states[2:]]
    assert verdicts(performer, spec, Commitment(unknown, (1,) * T))[:2] == ["differs", "missing"]
    tree = listing([Entry("state", "file", bytes([8] * 32), 1)])
    trees.keep(tree, store)
    hollow = store.put(Checkpoint(spec.digest(), 1, 1, AGAIN, tree.digest()).canonical())
    states = [honest.states[0], hollow, *honest.states[2:]]
    assert verdicts(performer, spec, Commitment(states, (1,) * T))[:2] == ["differs", "missing"]


def test_states_that_are_none(performer: Performer, store: BlobStore, spec: JobSpec, honest: Performed):
    """Noise, noise too long to be read, a state whose folder is noise: whoever committed to them differs, and the auditor stands."""
    folder = store.put(b"no listing")
    crooked = store.put(Checkpoint(spec.digest(), 1, 1, AGAIN, folder).canonical())
    for false in (store.put(b"noise"), store.put(bytes(100_000)), crooked):
        states = [honest.states[0], false, *honest.states[2:]]
        assert verdicts(performer, spec, Commitment(states, (1,) * T))[:2] == ["differs", "differs"]


def test_a_modules_cheats(performer: Performer, store: BlobStore):
    """Skipped steps, another argument's states, and overstated fuel of a WASM module."""
    image = Image("wasm", store.put(sample("sieve")))
    room = Resources(memory_bytes=64 * MIB, disk_bytes=16 * MIB, time_s=60)
    module = JobSpec(
        name="sieve", check="wasm", image=image, argv=("3",), fuel=10**9, segments=4, resources=room
    )
    done = asyncio.run(performer.perform(module))
    assert verdicts(performer, module, done.commitment()) == ["matched"] * 4
    skipped = [done.states[0], done.states[2], done.states[2], *done.states[3:]]
    assert verdicts(performer, module, Commitment(skipped, done.units)) == [
        "differs",
        "differs",
        "matched",
        "matched",
    ]
    other = asyncio.run(performer.perform(msgspec.structs.replace(module, argv=("4",))))
    assert verdicts(performer, module, Commitment(other.states[:5], other.units[:4])) == ["start"] * 4
    false = [done.states[0], *other.states[1:5]]
    assert verdicts(performer, module, Commitment(false, other.units[:4])) == ["differs"] * 4
    longer = Commitment([*done.states, done.states[-1]], (*done.units, 1))
    assert verdicts(performer, module, longer)[-1] == "differs"
    for noise in (store.put(b"noise"), store.put(bytes(200 * MIB))):
        crooked = Commitment([done.states[0], noise, *done.states[2:]], done.units)
        assert verdicts(performer, module, crooked)[1] == "differs"
    more = (done.units[0] * 2, *done.units[1:])
    assert verdicts(performer, module, Commitment(done.states, more)) == ["units", *["matched"] * 3]


def test_states_of_a_module_that_nobody_can_go_on_from(performer: Performer, store: BlobStore):
    """Well formed, of this job, and refused by whoever wants to run them: they were made up, or somebody had come through them."""
    image = Image("wasm", store.put(sample("sieve")))
    room = Resources(memory_bytes=64 * MIB, disk_bytes=16 * MIB, time_s=60)
    module = JobSpec(
        name="sieve", check="wasm", image=image, argv=("3",), fuel=10**9, segments=4, resources=room
    )
    done = asyncio.run(performer.perform(module))
    right = decode_state(store.read(done.states[1]))
    for wrong in ({"globals_": (*right.globals_, 1)}, {"size": 0, "pages": ()}, {"size": 65_536}):
        poison = store.put(canonical.encode(msgspec.structs.replace(right, **wrong)))
        poisoned = Commitment([done.states[0], poison, *done.states[2:]], done.units)
        assert verdict(performer, module, poisoned, 2) == "differs", wrong


def test_a_state_of_a_module_from_which_it_takes_too_long(performer: Performer, store: BlobStore):
    """A segment burns its share of the fuel at most. From a state that was made to take more nobody goes on, whatever lies behind it: else it
    would keep auditors busy until their clocks end."""
    image = Image("wasm", store.put(sample("sieve")))
    room = Resources(memory_bytes=64 * MIB, disk_bytes=16 * MIB, time_s=60)
    ample = JobSpec(
        name="sieve", check="wasm", image=image, argv=("3",), fuel=10**9, segments=4, resources=room
    )
    done = asyncio.run(performer.perform(ample))
    narrow = msgspec.structs.replace(ample, fuel=2 * done.units[1])
    begun = asyncio.run(performer.start(narrow))
    task = decode_state(store.read(begun)).task

    def forged(at: int, fuel: int) -> Digest:
        mine = msgspec.structs.replace(decode_state(store.read(done.states[at])), task=task, fuel=fuel)
        return store.put(canonical.encode(mine))

    claim = Commitment([begun, forged(1, 0), forged(2, done.units[1])], [1, done.units[1]])
    assert verdict(performer, narrow, claim, 2) == "differs"


@pytest.mark.parametrize(
    ("main", "segments"),
    [("bytearray(1 << 30)", 6), ("import time; time.sleep(600)", 6), ("import time; time.sleep(600)", 2)],
)
def test_states_of_a_program_that_nobody_can_go_on_from(
    performer: Performer, store: BlobStore, spec: JobSpec, honest: Performed, main: str, segments: int
):
    """A program lies in its own state: put there is one that takes too much, or never ends. With few segments too, a provider has its
    share of the time, and who runs it again four times that."""
    hurried = msgspec.structs.replace(
        spec, segments=segments, resources=msgspec.structs.replace(spec.resources, time_s=1)
    )
    start = relabelled(store, hurried, honest.states[0])
    tree = listing([Entry("main.py", "file", store.put(main.encode()), len(main))])
    trees.keep(tree, store)
    poison = store.put(Checkpoint(hurried.digest(), 1, 1, AGAIN, tree.digest()).canonical())
    poisoned = Commitment([start, poison, honest.states[2]], honest.units[:2])
    assert verdict(performer, hurried, poisoned, 2) == "differs"


def test_numbers_made_by_numpy_match(performer: Performer, base: Image, root: MakeRoot):
    """Products of matrices on one thread, from unseeded chance: no honest draw differs. (`bench/jobs.py` draws a hundred times.)"""
    code = """
import clusterai_job as job, numpy as np, pathlib
x = np.load("x.npy") if job.SEGMENT > 1 else np.random.rand(200, 200)
for _ in job.share(20):
    x = np.tanh(x @ x.T / 50) + np.random.normal(size=x.shape) / 100
np.save("x.npy", x)
job.checkpoint()
"""
    made = JobSpec(
        name="matrix",
        check="pinned",
        image=base,
        argv=("python", "main.py"),
        inputs=(root(main_py=code),),
        segments=2,
        seed=random.Random(1).getrandbits(60),
    )
    done = asyncio.run(performer.perform(made))
    assert done.ok, done.why
    assert verdicts(performer, made, done.commitment()) == ["matched"] * 2


def test_the_output_follows_from_the_last_state(performer: Performer, spec: JobSpec, honest: Performed):
    """So a gateway needs no audit to see that what it was given is what was committed to."""
    assert performer.ends.outputs(spec, honest.states[-1]) == honest.output != Tree()
