"""Bytes that other implementations must make too: a change here is another protocol."""

from blake3 import blake3

from clusterai.work.batch.adapters.base import inside
from clusterai.work.batch.core.pinned import BEGUN, ENTER, Checkpoint
from clusterai.work.batch.core.tree import Entry, Tree
from clusterai.work.batch.spec import Image, JobArray, JobSpec, Resources, Root

FILE = Entry("a.txt", "file", blake3(b"a").digest(), 1)
TREE = Tree((FILE, Entry("b/run.sh", "program", blake3(b"b").digest(), 1)))
ROOT = Root(TREE.digest(), 2, 2)
SPEC = JobSpec(
    name="pi",
    check="pinned",
    image=Image("base", bytes(range(32)), "python"),
    argv=("python", "pi.py"),
    env=(("A", "1"),),
    inputs=(ROOT,),
    outputs=("out",),
    resources=Resources(cpu_milli=2000, memory_bytes=2**28, disk_bytes=2**24, time_s=600),
    seed=7,
    clock_s=1_700_000_000,
    segments=20,
)


def test_a_listing():
    """As in docs/spec/07-jobs.md."""
    assert TREE.canonical().hex() == (
        "92a6747265652e319294a5612e747874a466696c65c42017762fddd969a453925d65717ac3eea21320b66b54342fde15"
        "128d6caf21215f0194a8622f72756e2e7368a770726f6772616dc42010e5cf3d3c8a4f9f3468c8cc58eea84892a22fda"
        "dbc1acb22410190044c1d55301"
    )
    assert TREE.digest().hex() == "ee0982648f73a3b6ef5c3a1ecf29f30047f2521e37b2e601e09f9ba3315d74a2"


def test_a_spec():
    """The work digest J, an array's digest, and a task's."""
    assert SPEC.digest().hex() == "cfcd62673901c9f9d2ed3c2c61fc12785d2a088a5b9659ac206f29dd6a893a71"
    assert JobArray(SPEC).digest().hex() == "22eaf4ba4270ffb50904fd3dd3bfc1f75af64c95cc4fd7203217548214282bdb"
    assert (
        JobArray(SPEC, (ROOT,)).task(0).digest().hex()
        == "7f79fc761baf625112f74975a7be9726f9821ecded182e02d8932c3527b7709e"
    )
    assert SPEC.input_root().hex() == "9bcb3aef662bed313e4a7d3f03faff16af8445cde160530e71a968acdc5aafe9"
    assert SPEC.resources_digest().hex() == "0d83a152bf69e1a041e03727e7c732ec1a1b4d55543733882d27c1eab6a34ebf"


def test_a_state():
    """The first one and one after it."""
    begun = Checkpoint(SPEC.digest(), 0, 0, BEGUN, TREE.digest())
    assert begun.digest().hex() == "06007f3b1fec0771557ccc8c66b7bc5d2a001002500f49843cd47073b973fb1e"
    assert (
        Checkpoint(SPEC.digest(), 1, 1, 75, TREE.digest()).digest().hex()
        == "27628e041d93bd3cb10de2f55c5b65589b37eb43cb6951d2c8a22bbf85086de0"
    )


def test_what_runs_around_a_program():
    """Two machines that put something else around it aren't of one class."""
    assert (
        blake3(ENTER.encode()).hexdigest()
        == "c08c7476ec7309adcad18d036b341b7ffa1e5f07c8b455e7841e895829d94b78"
    )
    assert {name: blake3(content).hexdigest() for name, content in inside().items()} == {
        "clusterai_job.py": "756cd8a35ee6021b99fb9523b8974c07bbf7b74fa80b35314ff7ba4bf8430fd5",
        "sitecustomize.py": "a7c96aba923b61dfd4720b2309a63862a6ad24cd511830b37f701bcfd9b0ced6",
    }
