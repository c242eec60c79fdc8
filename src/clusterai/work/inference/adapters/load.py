"""From a model's name to an engine that serves it: verify, convert once, compile."""

from clusterai.models.adapters.openvino_convert import openvino_folder
from clusterai.models.store import ModelStore, Progress, StoredModel
from clusterai.work.inference.adapters.guidance import grammar_maker
from clusterai.work.inference.adapters.openvino_engine import OpenVinoEngine
from clusterai.work.inference.core.weight import GENERIC


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
) -> OpenVinoEngine:
    """An engine for `model`. Blocks for seconds (2 once converted): call it in a thread.

    Args:
        weights: serve these under `model`'s address: what a cheat does, and the demo shows to be caught.

    Raises:
        Altered: the weights on disk aren't the model's.
        NotConverted: OpenVINO can't read this kind of file.
    """
    served = weights or model
    store.verify(served, progress)
    folder = openvino_folder(store, served, progress)
    tokenizer = model.tokenizer()
    if progress:
        progress("compiling the model", 0.6)
    engine = OpenVinoEngine(
        folder,
        model.address,
        tokenizer.vocabulary,
        context=model.card.context,
        slots=slots,
        queue=queue,
        cache_bytes=cache_bytes,
        threads=threads,
        grammars=grammar_maker(tokenizer),
        calibration=model.card.calibration or GENERIC,
    )
    if progress:
        progress("ready", 1.0)
    return engine
