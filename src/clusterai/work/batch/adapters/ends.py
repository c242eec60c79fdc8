"""What a job's last state gives, by the state alone: nothing is run for it."""

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore, Reason
from clusterai.sandbox.core.spec import is_file_name
from clusterai.sandbox.core.state import decode_state
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.adapters.modules import module_task, most_state_bytes
from clusterai.work.batch.adapters.native import MOST_CHECKPOINT_BYTES, Foreign
from clusterai.work.batch.core import pinned
from clusterai.work.batch.core.pinned import Checkpoint, decode_checkpoint
from clusterai.work.batch.core.tree import (
    EMPTY,
    MOST_TREE_BYTES,
    Entry,
    Tree,
    checked_path,
    listing,
    outputs,
)
from clusterai.work.batch.spec import JobSpec

_OUT = "out/"


class Ends:
    """Last states in a store. All methods raise `Foreign` where what lies there is no state of this job, and `NoSuchBlob`,
    `Damaged` or `canonical.Malformed`."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store

    def outputs(self, spec: JobSpec, end: Digest) -> Tree:
        """The result as the last state has it, nothing where that isn't an end: what a provider has to commit to and to hand over.

        What a module printed isn't in it: its state has a chain of hashes over it.
        """
        if spec.check == "wasm":
            return self._of_module(spec, end)
        last = self._checkpoint(spec, end)
        if not last.has_ended:
            return EMPTY
        tree = trees.load(last.tree, self.store)
        _, start = pinned.begin(spec, [trees.load(root.digest, self.store) for root in spec.inputs])
        return outputs(start, tree, spec.outputs)

    def shown_by(self, spec: JobSpec, end: Digest) -> list[tuple[Digest, int]]:
        """What besides the state itself and the inputs' listings `outputs` reads, with the most bytes that each may have."""
        if spec.check == "wasm":
            return []
        last = self._checkpoint(spec, end)
        return [(Digest(last.tree), MOST_TREE_BYTES)] if last.has_ended else []

    @staticmethod
    def most_state_bytes(spec: JobSpec) -> int:
        """The longest preimage that a state can have."""
        return most_state_bytes(spec) if spec.check == "wasm" else MOST_CHECKPOINT_BYTES

    def _of_module(self, spec: JobSpec, end: Digest) -> Tree:
        state = decode_state(self.store.read(end, most_state_bytes(spec)))
        if state.task != canonical.digest(module_task(spec, self.store)):
            raise Foreign("a state of another job")
        if state.ended not in (Reason.FINISHED, Reason.FAILED, Reason.TRAPPED):
            return EMPTY
        found: list[Entry] = []
        for path, content in state.system.files.items():
            name = path.removeprefix(_OUT)
            if path.startswith(_OUT) and is_file_name(name):
                found.append(Entry(checked_path(name), "file", self.store.put(content), len(content)))
        return outputs(Tree(), listing(found), spec.outputs)

    def _checkpoint(self, spec: JobSpec, state: Digest) -> Checkpoint:
        found = decode_checkpoint(self.store.read(state, MOST_CHECKPOINT_BYTES))
        if found.job != spec.digest():
            raise Foreign("a state of another job")
        return found
