"""Content to a gateway and back: only what is missing goes up, and nothing that comes down is believed before it was hashed."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from clusterai.cli.failure import Exit, Failure
from clusterai.protocol import canonical
from clusterai.protocol.ids import BadId, Digest, digest
from clusterai.sandbox import BlobStore
from clusterai.sdk.jobs import Jobs
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.core.tree import Tree

Moved = Callable[[int], None]
"""Called with the bytes that were just moved."""


def upload(jobs: Jobs, wanted: Iterable[tuple[Digest, int]], store: BlobStore, moved: Moved) -> int:
    """Send what the gateway doesn't have; how many contents that were."""
    sent = 0
    for name, size in wanted:
        if jobs.has(name):
            moved(size)
            continue
        jobs.put(name, _counted(store.stream(name), moved))
        sent += 1
    return sent


def download(jobs: Jobs, output: str, store: BlobStore, moved: Moved) -> Tree:
    """The outputs' listing and all that it names, in the store.

    Raises:
        Failure: exit code 6, what came isn't what its address says.
    """
    try:
        root = digest(output)
    except BadId as error:
        raise Failure("the gateway names no outputs", str(error), code=Exit.UNTRUE) from None
    _one(jobs, root, store, moved)
    try:
        tree = trees.load(root, store)
    except canonical.Malformed as error:
        raise Failure("the outputs' listing is none", str(error), code=Exit.UNTRUE) from None
    for name, _ in tree.contents():
        _one(jobs, name, store, moved)
    return tree


def write(tree: Tree, store: BlobStore, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    (target / trees.MARK).touch()
    trees.lay_out(tree, store, target)


def _one(jobs: Jobs, name: Digest, store: BlobStore, moved: Moved) -> None:
    if name in store:
        return
    got = store.write(_counted(jobs.get(name), moved))
    if got != name:
        store.delete(got)
        raise Failure(
            f"content 0x{name.hex()[:16]}… came with other bytes",
            "it was altered on the way, or the gateway is wrong",
            "nothing was written; ask again, or ask another gateway",
            Exit.UNTRUE,
        )


def _counted(chunks: Iterable[bytes], moved: Moved) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        moved(len(chunk))
