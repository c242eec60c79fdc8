"""A store and a performer with real sandboxes, one for all tests of a module."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clusterai.sandbox import BlobStore
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.adapters.base import host_base
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.batch.core.tree import Entry, listing
from clusterai.work.batch.spec import Image, Root

MakeRoot = Callable[..., Root]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BlobStore:
    return BlobStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def performer(store: BlobStore, folder: Path) -> Performer:
    return Performer(store, folder)


@pytest.fixture(scope="session")
def base() -> Image:
    return Image("base", host_base().digest(), "python")


@pytest.fixture(scope="module")
def root(store: BlobStore) -> MakeRoot:
    """Files by name as an input; names that end in `.sh` are programs, and `__` is a slash."""

    def make(**content: str) -> Root:
        entries: list[Entry] = []
        for name, text in content.items():
            path = name.replace("__", "/").replace("_", ".")
            form = "program" if path.endswith(".sh") else "file"
            entries.append(Entry(path, form, store.put(text.encode()), len(text.encode())))
        tree = listing(entries)
        trees.keep(tree, store)
        return Root(tree.digest(), len(tree.entries), tree.size)

    return make
