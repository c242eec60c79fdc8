"""A folder as a value: the listing whose digest is a job's state, its inputs and its outputs.

A listing names each file by path, whether it is a program, its size and the BLAKE3 of its content. Times, owners, links,
empty folders and other mode bits aren't in it: two machines that did the same work don't agree on them, or a stranger
could bend them.

    digest of a folder = BLAKE3 of the canonical bytes of its `Tree`
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.sandbox.core.spec import MAX_DEPTH, is_file_name
from clusterai.work.request import within

MOST_ENTRIES = 4000
"""A sandbox can be handed 4096 files, of which we need a few."""
MOST_DEPTH = MAX_DEPTH - 1
"""A sandbox gets the folder inside another one."""
MOST_TREE_BYTES = 8 * 1024 * 1024

Form = Literal["file", "program"]


class BadPath(ValueError):
    """{path} can't be a path in a job's folder: {why}."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path[:120]!r} can't be a path in a job's folder: {why}")


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One file. A `program` may be executed; else it is like any file."""

    path: str
    form: Form
    digest: bytes
    size: int

    def __post_init__(self) -> None:
        checked_path(self.path)
        within("length of content digest in bytes", len(self.digest), 32, 32)
        within("size", self.size, 0, 2**60)


class Tree(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="tree.1"):
    """A folder: sorted by path, each path once, no path inside a file."""

    entries: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        within("number of entries", len(self.entries), 0, MOST_ENTRIES)
        before = ""
        paths: set[str] = set()
        for entry in self.entries:
            if entry.path <= before:
                raise BadPath(entry.path, "it is listed out of order, or twice")
            before = entry.path
            if any(folder in paths for folder in _parents(entry.path)):
                raise BadPath(entry.path, "it lies inside a file")
            paths.add(entry.path)

    def canonical(self) -> bytes:
        return canonical.encode(self)

    def digest(self) -> Digest:
        return canonical.digest(self)

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    def contents(self) -> list[tuple[Digest, int]]:
        """Digest and size of each different content, in order of path."""
        found: dict[bytes, int] = {}
        for entry in self.entries:
            found.setdefault(entry.digest, entry.size)
        return [(Digest(digest), size) for digest, size in found.items()]

    def programs(self) -> frozenset[str]:
        return frozenset(entry.path for entry in self.entries if entry.form == "program")


EMPTY = Tree()


def listing(entries: Iterable[Entry]) -> Tree:
    """Entries in any order as a tree.

    Raises:
        BadPath: a path twice, or one inside a file.
        OutOfRange: too many.
    """
    return Tree(tuple(sorted(entries, key=lambda entry: entry.path)))


def decode_tree(raw: bytes) -> Tree:
    """
    Raises:
        canonical.Malformed: not a tree, too long, or not in canonical form.
    """
    return canonical.decode(raw, Tree, MOST_TREE_BYTES)


def overlay(trees: Sequence[Tree]) -> Tree:
    """Folders laid over each other. The later one wins: a file in the way of its folder goes, and so does a folder in
    the way of its file, with all that is in it.
    """
    found: dict[str, Entry] = {}
    for tree in trees:
        below: set[str] = {folder for path in found for folder in _parents(path)}
        for entry in tree.entries:
            for folder in _parents(entry.path):
                found.pop(folder, None)
            if entry.path in below:
                for path in [it for it in found if it.startswith(entry.path + "/")]:
                    del found[path]
            found[entry.path] = entry
    return listing(found.values())


def outputs(start: Tree, end: Tree, wanted: Sequence[str]) -> Tree:
    """What of the last state is the job's result: the wanted paths, or without any what is new or changed."""
    if not wanted:
        before = set(start.entries)
        return Tree(tuple(entry for entry in end.entries if entry not in before))
    return Tree(tuple(entry for entry in end.entries if any(_within(entry.path, path) for path in wanted)))


def missing(tree: Tree, wanted: Sequence[str]) -> list[str]:
    """Which of the wanted paths it has nothing of."""
    return [path for path in wanted if not any(_within(entry.path, path) for entry in tree.entries)]


def checked_path(path: str) -> str:
    """
    Raises:
        BadPath: absolute, with `..`, hidden, with a character that isn't plain, too long or too deep.
    """
    if path.startswith("/"):
        raise BadPath(path, "it is absolute; name it relative to the job's folder")
    if not is_file_name(path) or path.count("/") > MOST_DEPTH - 1:
        raise BadPath(
            path,
            f"use letters, digits and . _ + @ = - in at most {MOST_DEPTH} parts of at most 128, none of which begins with a dot",
        )
    return path


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
