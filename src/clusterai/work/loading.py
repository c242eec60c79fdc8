"""From a model to an engine, whatever kind of work the model is for."""

import importlib
from typing import Any

from clusterai.models.store import ModelStore, NoSuchModel, Progress, StoredModel
from clusterai.work import KINDS


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
) -> Any:
    """An engine of the kind of work that the model's card names. Blocks for seconds: call it in a thread.

    Args:
        weights: serve these under the model's address: what a cheat does, and the demo shows to be caught.
        slots, queue: requests in work at once, and waiting beyond those.

    Raises:
        NoSuchModel: no kind of work here uses such models.
        Altered: the weights on disk aren't the model's.
        ImportError: the engine's library isn't installed.
        ValueError: no engine takes files like these.
    """
    kind = next((kind for kind in KINDS.values() if kind.serves == model.card.kind), None)
    if kind is None:
        served = ", ".join(sorted(kind.serves for kind in KINDS.values()))
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
