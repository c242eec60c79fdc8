"""From a model's name to an engine, whatever kind of work the model is for. The toy, which is in no store, is told apart here alone."""

import importlib
from typing import Any

from clusterai.models.store import ModelStore, NoSuchModel, Progress, StoredModel
from clusterai.protocol.ids import Digest
from clusterai.work.inference.toy import Toy, toy_of


def find(store: ModelStore, wanted: Digest | str) -> StoredModel:
    """A model by name or address.

    Raises:
        NoSuchModel: it isn't in the store.
    """
    return toy_of(wanted) or store.get(wanted)


def load_engine(
    store: ModelStore,
    model: StoredModel,
    *,
    weights: StoredModel | None = None,
    slots: int = 32,
    queue: int = 128,
    cache_bytes: int = 512 << 20,
    threads: int = 1,
    progress: Progress | None = None,
    pause_s: float = 0.0,
) -> Any:
    """An engine of the kind of work that the model's card names. Blocks for seconds: call it in a thread.

    Args:
        weights: serve these under the model's address: what a cheat does, and the demo shows to be caught.
        slots, queue: requests in work at once, and waiting beyond those.
        pause_s: a toy's time per token, so that a stream can be watched.

    Raises:
        NoSuchModel: no kind of work here uses such models.
        Altered: the weights on disk aren't the model's.
        ImportError: the engine's library isn't installed.
        ValueError: no engine takes files like these.
    """
    from clusterai.work import KINDS
    from clusterai.work.inference.adapters.tiny import TinyEngine

    if isinstance(model, Toy):
        altered = weights.altered if isinstance(weights, Toy) else 0.0
        return TinyEngine(model.address, slots=slots, queue=queue, pause_s=pause_s, altered=altered)
    kind = next((kind for kind in KINDS.values() if kind.serves == model.card.kind), None)
    if kind is None:
        served = ", ".join(sorted(kind.serves for kind in KINDS.values() if kind.serves))
        raise NoSuchModel(
            f"{model.card.name} is a model for {model.card.kind!r}; this version serves models for {served}"
        )
    return importlib.import_module(kind.engines).load_engine(
        store,
        model,
        weights=weights,
        slots=slots,
        queue=queue,
        cache_bytes=cache_bytes,
        threads=threads,
        progress=progress,
    )
