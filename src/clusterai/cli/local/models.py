"""Makes a model ready to be loaded: once per machine, with progress, before any node asks for it."""

import asyncio
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from clusterai.cli.failure import Exit, Failure
from clusterai.runtime.adapters.config import default_models

TINY = "tiny"
"""The toy model: a network that serves it serves no other."""


EMBEDDING = "all-minilm-l6-v2"
SEALED = "sealed-"
"""Models for encrypted inputs that come along begin so."""
BESIDE = {EMBEDDING: "openvino", "sealed-digits": "tenseal", "sealed-breast-cancer": "tenseal"}
"""What a real model is served with, where the library is installed: they are small, and come in packages."""


def served(model: str) -> list[str]:
    """What a local network serves: the model asked for, and beside a real one those that are there anyway.

    The asked-for model stands first, so it is loaded first: nobody waits for the others.
    """
    from clusterai.models.store import BUILT_IN

    if model == TINY or model in BESIDE:
        return [model]
    return [
        model,
        *(
            name
            for name, library in BESIDE.items()
            if importlib.util.find_spec(BUILT_IN[name][0]) and importlib.util.find_spec(library)
        ),
    ]


async def prepare(name: str, say: Callable[[str], None]) -> None:
    """Find, verify and convert the weights of `name`.

    Raises:
        Failure: there is no such model, or its weights changed, or they can't be converted.
    """
    loop = asyncio.get_running_loop()

    def progress(doing: str, part: float) -> None:
        loop.call_soon_threadsafe(say, f"{name}: {doing} {part:.0%}" if part < 1 else f"{name}: {doing}")

    with ThreadPoolExecutor(1, "model") as worker:
        await loop.run_in_executor(worker, _prepare, name, progress)


def _prepare(name: str, progress: Callable[[str, float], None]) -> None:
    from clusterai.models import Altered, ModelStore, NoSuchModel
    from clusterai.models.adapters.openvino_convert import NotConverted, openvino_folder
    from clusterai.work.loading import find

    store = ModelStore(default_models())
    try:
        model = find(store, name)
        if not model.manifest.files:
            return
        if model.card.kind != "chat":
            store.verify(model, progress)
        else:
            openvino_folder(store, model, progress)
    except NoSuchModel as error:
        raise Failure(str(error), code=Exit.NOT_FOUND) from None
    except (Altered, NotConverted) as error:
        raise Failure(
            f"{name} can't be served", str(error), "clusterai model add FILE adds another"
        ) from None
