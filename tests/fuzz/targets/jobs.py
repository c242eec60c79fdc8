"""What strangers say of jobs: specs, arrays, listings and states as canonical bytes; and job files, which people write."""

from collections.abc import Callable
from typing import Any

from blake3 import blake3

from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.work.batch.core.imports import parse
from clusterai.work.batch.core.located import BadFile
from clusterai.work.batch.core.pinned import AGAIN, Checkpoint, decode_checkpoint
from clusterai.work.batch.core.tree import Entry, Tree, decode_tree
from clusterai.work.batch.spec import Image, JobArray, JobSpec, Root, decode_array, decode_spec

DECODERS: dict[str, Callable[[bytes], Any]] = {
    "spec": decode_spec,
    "array": decode_array,
    "tree": decode_tree,
    "checkpoint": decode_checkpoint,
}
NAMES = [*DECODERS, "file"]
FILES = (
    "run: x\nresources: {cpu: 500m, memory: 1GB, time: 1h}\nclass: pinned\nsegments: 3\noutputs: [a]\nenvs: {A: b}\n",
    "num_nodes: 1\nresources: {cpus: 4+, accelerators: H100:2}\nrun: x\nfile_mounts: {/a: b}\n",
    "type: task\ncommands: [x]\nresources: {gpu: 'A100:80GB:1', cpu: 2..4}\nretry: true\n",
    "services: {a: {image: b, command: [c]}}\nprofiles: {compute: {a: {resources: {cpu: {units: 1}}}}}\ndeployment: {a: {b: {profile: a, count: 1}}}\n",
)


def once(data: bytes) -> bool:
    """The first byte names what the rest is to be."""
    name, body = NAMES[data[0] % len(NAMES)] if data else NAMES[0], data[1:]
    try:
        if name == "file":
            parse(body.decode(errors="replace"))
            return True
        value = DECODERS[name](body)
    except (Malformed, BadFile):
        return False
    assert canonical.encode(value) == body
    return True


def seeds() -> list[bytes]:
    content = blake3(b"").digest()
    tree = Tree((Entry("a", "file", content, 0), Entry("b/c", "program", content, 0)))
    root = Root(tree.digest(), 2, 0)
    spec = JobSpec(
        name="a",
        check="pinned",
        image=Image("base", content, "python"),
        argv=("a",),
        env=(("A", "b"),),
        inputs=(root,),
        outputs=("a",),
        segments=2,
    )
    values = (
        spec,
        JobArray(spec, (root,)),
        tree,
        Checkpoint(spec.digest(), 1, 1, AGAIN, tree.digest()),
    )
    found = [bytes((at,)) + canonical.encode(value) for at, value in enumerate(values)]
    return [*found, *(bytes((len(values),)) + text.encode() for text in FILES)]
