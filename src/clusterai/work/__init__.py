"""Kinds of work. Each is one folder with spec, price, perform and check, and one line here.

The rooms above (gateway, node, validator) know work only by a `Kind`; adding a kind edits nothing else.
"""

from clusterai.models.store import ModelStore, NoSuchModel, Progress, StoredModel
from clusterai.work import embedding, inference
from clusterai.work.engine import Engine, Means
from clusterai.work.kind import Kind

KINDS: dict[str, Kind] = {kind.name: kind for kind in (inference.KIND, embedding.KIND)}


def load_engine(
    store: ModelStore, model: StoredModel, means: Means, progress: Progress | None = None
) -> Engine:
    """An engine for the model, of the kind of work that its card says. Blocks for seconds: call it in a thread.

    Raises:
        NoSuchModel: no kind of work here uses such models.
        Altered: the weights on disk aren't the model's.
        ValueError: no engine takes files of this kind.
    """
    for kind in KINDS.values():
        if kind.serves == model.card.kind and kind.load is not None:
            return kind.load(store, model, means, progress)
    raise NoSuchModel(
        f"{model.card.name} is a model for {model.card.kind!r}, which this version can't do; there are "
        + ", ".join(sorted(kind.serves for kind in KINDS.values()))
    )


__all__ = ["KINDS", "Kind", "Means", "load_engine"]
