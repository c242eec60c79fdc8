"""Kinds of work. Each is one folder with spec, price, perform and check, and one word here.

The rooms above (gateway, node, validator) know work only by a `Kind`; adding a kind edits nothing else.
All are imported when `KINDS` is asked for, and not when one of the folders is: its reader doesn't wait for all others' libraries.
"""

import importlib
from typing import TYPE_CHECKING

from clusterai.work.kind import Kind

_NAMES = ("inference", "embedding", "cluster", "query", "joint", "sealed", "training")

if TYPE_CHECKING:
    KINDS: dict[str, Kind]


def __getattr__(name: str) -> dict[str, Kind]:
    if name != "KINDS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    kinds = [importlib.import_module(f"{__name__}.{folder}").KIND for folder in _NAMES]
    globals()["KINDS"] = found = {kind.name: kind for kind in kinds}
    return found


__all__ = ["KINDS", "Kind"]
