"""Folders in and out of the content store."""

import os
import stat
from pathlib import Path

from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore
from clusterai.work.batch.core.tree import (
    MOST_TREE_BYTES,
    BadPath,
    Entry,
    Tree,
    checked_path,
    decode_tree,
    listing,
)

IGNORED = frozenset(("__pycache__", "node_modules"))
MARK = ".clusterai-outputs"
"""Lies in a folder of outputs, so that the next job from the same folder doesn't take them for inputs."""


def take(source: Path, store: BlobStore, at: str = "") -> tuple[Tree, list[str]]:
    """A file or folder as a tree in the store, and the names that were not taken: hidden ones, links, odd names.

    Args:
        at: where in the tree; empty for its root, which a file can't be.

    Raises:
        OSError: it isn't there or can't be read.
        BadPath, StoreFull.
    """
    skipped: list[str] = []
    if source.is_file():
        return listing([_entry(source, at or source.name, store)]), skipped
    entries: list[Entry] = []
    for folder, folders, names in os.walk(source):
        here = Path(folder).relative_to(source)
        for name in [it for it in folders if _stays(Path(folder) / it)]:
            folders.remove(name)
            skipped.append(str(here / name) + "/")
        for name in names:
            path = Path(folder) / name
            place = "/".join(part for part in (at, str(here / name)) if part)
            try:
                checked_path(place)
            except BadPath:
                skipped.append(str(here / name))
                continue
            if not stat.S_ISREG(path.lstat().st_mode):
                skipped.append(str(here / name))
                continue
            entries.append(_entry(path, place, store))
    return listing(entries), sorted(skipped)


def _stays(folder: Path) -> bool:
    return (
        folder.name.startswith(".")
        or folder.name in IGNORED
        or folder.is_symlink()
        or (folder / MARK).exists()
    )


def _entry(path: Path, place: str, store: BlobStore) -> Entry:
    checked_path(place)
    digest = store.put_file(path)
    mode = path.stat().st_mode
    return Entry(place, "program" if mode & stat.S_IXUSR else "file", digest, store.size(digest))


def keep(tree: Tree, store: BlobStore) -> Digest:
    """Put a listing itself into the store."""
    digest = store.put(tree.canonical())
    assert digest == tree.digest(), "a listing is addressed by its canonical bytes"
    return digest


def load(digest: bytes, store: BlobStore) -> Tree:
    """
    Raises:
        NoSuchBlob, Damaged, canonical.Malformed.
    """
    return decode_tree(store.read(Digest(digest), MOST_TREE_BYTES))


def lay_out(tree: Tree, store: BlobStore, target: Path) -> None:
    """Write a tree's files, each verified, under a folder; what is there and isn't in the tree stays.

    Raises:
        NoSuchBlob, Damaged, OSError.
    """
    for entry in tree.entries:
        place = target / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = place.with_name(f".{place.name}.part")
        aside.unlink(missing_ok=True)
        store.link(Digest(entry.digest), aside)
        aside.chmod(0o755 if entry.form == "program" else 0o644)
        aside.replace(place)
