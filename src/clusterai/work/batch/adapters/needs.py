"""What a segment begins with, by state and spec alone: whoever fetches it from a stranger takes nothing else.

A state names what it needs, and its digest stands in the commitment; so nobody can make an auditor fetch what no run reads.
"""

import contextlib
from collections.abc import Generator

from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore, Damaged, NoSuchBlob
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.adapters.modules import most_state_bytes
from clusterai.work.batch.adapters.native import MOST_CHECKPOINT_BYTES
from clusterai.work.batch.core.pinned import decode_checkpoint
from clusterai.work.batch.core.tree import MOST_TREE_BYTES
from clusterai.work.batch.spec import JobSpec

MOST_BEGIN_BYTES = 4 * 1024**3
"""Of all that a segment begins with."""


def needs(spec: JobSpec, state: Digest, store: BlobStore) -> dict[Digest, int]:
    """All content that running the segment behind a state reads, inputs and image included, as far as what lies in the store shows it;
    with the most bytes that each may have. Whole where all of it lies there.

    Raises:
        Damaged.
    """
    found: dict[Digest, int] = {}

    def folder(listing: bytes) -> None:
        found[Digest(listing)] = MOST_TREE_BYTES
        with _as_it_shows():
            found.update(trees.load(listing, store).contents())

    if spec.check == "wasm":
        found[state] = most_state_bytes(spec)
    else:
        found[state] = MOST_CHECKPOINT_BYTES
        with _as_it_shows():
            folder(decode_checkpoint(store.read(state, MOST_CHECKPOINT_BYTES)).tree)
    for root in spec.inputs:
        folder(root.digest)
    if spec.image.form in ("wasm", "tar"):
        found[Digest(spec.image.digest)] = MOST_BEGIN_BYTES
    return found


@contextlib.contextmanager
def _as_it_shows() -> Generator[None]:
    """What isn't here shows nothing, and what isn't what it should be is found out by running the segment."""
    try:
        yield
    except Damaged:
        raise
    except (NoSuchBlob, ValueError):
        pass
