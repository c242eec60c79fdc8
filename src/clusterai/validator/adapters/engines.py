"""This validator's own engines, by model: loaded when the first receipt of a model is drawn, and kept.

The weights must be in the model store and are verified before they are loaded: an auditor with other weights than the
model's would accuse the honest.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clusterai.protocol.ids import Digest, hex0x
from clusterai.work.engine import Engine

Told = Callable[[str, float], None]


class NoEngine(LookupError):
    """This validator can't check {model}: {why}. Add the model with `clusterai model add FILE`."""


class Engines:
    """Use inside one event loop; `close` at the end.

    Args:
        models_folder: the model store.
        told: progress of loading, from the loading thread.
    """

    def __init__(self, models_folder: Path, threads: int, cache_bytes: int, told: Told) -> None:
        self._models_folder = models_folder
        self._threads = threads
        self._cache_bytes = cache_bytes
        self._told = told
        self._loaded: dict[Digest, Engine] = {}
        self._turn = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1, "engine loader")

    async def of(self, model: Digest) -> Engine:
        """The engine of a model; waits for it to be loaded.

        Raises:
            NoEngine: the model isn't in the store, its weights were altered, or no engine takes it.
        """
        async with self._turn:
            found = self._loaded.get(model)
            if found is None:
                found = self._loaded[model] = await self._load(model)
            return found

    async def _load(self, model: Digest) -> Engine:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._loader, self._load_stored, model)

    def _load_stored(self, model: Digest) -> Engine:
        # Imported here: tokenizers and engines take a second.
        from clusterai.models.store import BUILT_IN, Altered, ModelStore, NoSuchModel
        from clusterai.work.loading import find, load_engine

        store = ModelStore(self._models_folder)
        try:
            try:
                stored = find(store, model)
            except NoSuchModel:
                # A package's model enters the store when it is first asked for by name.
                for name in BUILT_IN:
                    try:
                        store.get(name)
                    except NoSuchModel:
                        continue
                stored = store.get(model)
            return load_engine(
                store,
                stored,
                slots=4,
                cache_bytes=self._cache_bytes,
                threads=self._threads,
                progress=self._told,
            )
        except (NoSuchModel, Altered, ImportError, ValueError) as error:
            raise NoEngine(f"this validator can't check model {hex0x(model)}: {error}") from None

    async def drop(self, model: Digest) -> None:
        """It broke; the next check loads another."""
        broken = self._loaded.pop(model, None)
        if broken is not None:
            await broken.close()

    async def close(self) -> None:
        for engine in self._loaded.values():
            await engine.close()
        self._loader.shutdown(wait=False, cancel_futures=True)
