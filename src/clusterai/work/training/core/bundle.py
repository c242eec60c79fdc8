"""A Flower app as one content: its files, whose digest is the `code` that grants name."""

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.access import MOST_CODE_BYTES
from clusterai.protocol.ids import Digest

MOST_FILES = 256
MOST_BUNDLE_BYTES = MOST_CODE_BYTES
"""An owner reads it before it is granted anything."""
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
MOST_DEPTH = 7


class BadBundle(ValueError):
    """This folder, or these bytes, can't be sent as an app: {why}."""


class File(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    path: Annotated[str, Meta(max_length=512)]
    data: bytes


class Bundle(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="flower.app.1"):
    """Files sorted by path, each once; `pyproject.toml` among them."""

    files: Annotated[tuple[File, ...], Meta(min_length=1, max_length=MOST_FILES)]

    def __post_init__(self) -> None:
        paths = [file.path for file in self.files]
        if paths != sorted(set(paths)):
            raise ValueError("an app's files are sorted by path, each once")
        for path in paths:
            if not is_path(path):
                raise ValueError(f"not an app's path: {path[:80]!r}; plain names, at most {MOST_DEPTH} deep")
        if "pyproject.toml" not in paths:
            raise ValueError("a Flower app has a pyproject.toml")

    def canonical(self) -> bytes:
        return canonical.encode(self)

    @property
    def digest(self) -> Digest:
        return canonical.digest(self)


def is_path(path: str) -> bool:
    """A relative path of plain parts: nothing hidden, nothing that leads out."""
    parts = path.split("/")
    return len(parts) <= MOST_DEPTH and all(_PART.fullmatch(part) for part in parts)


def decode_bundle(raw: bytes) -> Bundle:
    """
    Raises:
        canonical.Malformed: a stranger's nonsense.
    """
    return canonical.decode(raw, Bundle, MOST_BUNDLE_BYTES)
