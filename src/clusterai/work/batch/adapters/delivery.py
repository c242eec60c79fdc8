"""Getting a job's outputs from whoever has them, and seeing that they are those of the last state.

The requester's gateway does so with the provider, and where that fails members of the panel do, each by itself; both check the
same. Everything is named by the chain: the last state h_T, hidden so that its auditor can't copy it, and the committed listing's
digest. So it doesn't matter who hands it over, nor who lies.
"""

from collections.abc import Callable, Iterable

from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Digest
from clusterai.protocol.leases import hidden_state
from clusterai.sandbox import BlobStore, Damaged
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.adapters.ends import Ends
from clusterai.work.batch.adapters.exchange import Exchange, part
from clusterai.work.batch.adapters.native import Foreign
from clusterai.work.batch.core.delivery import is_owed, most_output_bytes
from clusterai.work.batch.core.tree import MOST_TREE_BYTES, Tree
from clusterai.work.batch.spec import JobSpec


class Differs(ValueError):
    """The last state doesn't give what was committed to: {why}."""


class TooLarge(ValueError):
    """{size} bytes of outputs are more than the {most} that are taken."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"{size} bytes of outputs are more than the {most} that are taken")
        self.size = size


async def fetch(
    ends: Ends,
    exchange: Exchange,
    spec: JobSpec,
    last: Digest,
    output: Digest,
    ask: Callable[[Digest, int], object],
    most_bytes: int,
) -> tuple[Tree, Digest]:
    """The listing of the outputs, and the last state; they and all that they name are in the store then.

    Args:
        ends: of the store into which `exchange` puts.
        last, output: h_T, hidden, and the committed listing's digest, as the chain has them.
        ask: for the part of a content that begins at an offset.
        most_bytes: of all outputs.

    Raises:
        NotHad: it can't be had from there.
        Differs: what the last state gives isn't what was committed to; nobody else could hand over anything better.
        TooLarge, StoreFull: it isn't taken, which says nothing of the provider.
    """
    state = await exchange.reveal(last, ask)
    await exchange.fetch_all([(state, ends.most_state_bytes(spec))], ask)
    for root in spec.inputs:
        await exchange.fetch_all([(Digest(root.digest), MOST_TREE_BYTES)], ask)
    store = ends.store
    try:
        await exchange.fetch_all(ends.shown_by(spec, state), ask)
        given = ends.outputs(spec, state)
    except Damaged:
        raise
    except ValueError as error:
        raise Differs(f"it is {error}" if isinstance(error, Foreign) else str(error)) from None
    prints = spec.check == "wasm" and spec.stdout
    if given.digest() == output:
        trees.keep(given, store)
    elif not prints:
        raise Differs(f"it gives 0x{given.digest().hex()}, and 0x{output.hex()} was committed to")
    await exchange.fetch_all([(output, MOST_TREE_BYTES)], ask)
    try:
        listed = trees.load(output, store)
    except Malformed as error:
        raise Differs(f"what was committed to is no listing: {error}") from None
    if not is_owed(given, listed, prints):
        raise Differs(f"it gives 0x{given.digest().hex()}, and 0x{output.hex()} was committed to")
    if listed.size > most_output_bytes(spec):
        raise Differs(f"{listed.size} bytes of outputs are more than the job can leave")
    if listed.size > most_bytes:
        raise TooLarge(listed.size, most_bytes)
    await exchange.fetch_all(listed.contents(), ask)
    return listed, state


def kept(ends: Ends, spec: JobSpec, state: Digest, output: Digest) -> list[tuple[Digest, int]]:
    """All content that `fetch` asks for behind the last state's name, with sizes, as a provider has it in its store.

    Raises:
        NoSuchBlob, Damaged, canonical.Malformed, Foreign.
    """
    store = ends.store
    found = [state, *(Digest(it.digest) for it in spec.inputs), output]
    found += [digest for digest, _ in ends.shown_by(spec, state)]
    sizes = {digest: store.size(digest) for digest in found}
    return [*(sizes | dict(trees.load(output, store).contents())).items()]


def piece(
    store: BlobStore, named: Iterable[tuple[Digest, int]], state: Digest, content: Digest, offset: int
) -> tuple[int, bytes] | None:
    """What is answered to who asks for a part of a delivery: of a content that is `named`, or the state where it is asked for by what
    hides it. None for anything else."""
    if content == hidden_state(state):
        return len(state), bytes(state)
    return part(store, content, offset) if content in dict(named) else None
