"""An app's folder as a bundle."""

import os
from pathlib import Path

from clusterai.work.training.core.bundle import (
    MOST_BUNDLE_BYTES,
    MOST_FILES,
    BadBundle,
    Bundle,
    File,
    is_path,
)

LEFT_OUT = frozenset({"__pycache__", "node_modules", "dist", "build", "tests"})
KINDS = frozenset(
    {".py", ".toml", ".json", ".txt", ".md", ".yaml", ".yml", ".cfg", ".npz", ".npy", ".csv", ".safetensors"}
)


def bundle_of(folder: Path) -> Bundle:
    """Python files, configuration and small data of an app; hidden files, links and what is built stay at home.

    Raises:
        BadBundle.
    """
    if not (folder / "pyproject.toml").is_file():
        raise BadBundle(f"{folder} holds no pyproject.toml: name the folder of a Flower app")
    files: list[File] = []
    size = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(it for it in folders if it not in LEFT_OUT and not it.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            inside = path.relative_to(folder).as_posix()
            if path.is_symlink() or path.suffix not in KINDS or not is_path(inside):
                continue
            data = path.read_bytes()
            size += len(data)
            if size > MOST_BUNDLE_BYTES - 32_768 or len(files) >= MOST_FILES:
                raise BadBundle(
                    f"more than {MOST_FILES} files, or {MOST_BUNDLE_BYTES >> 10} KiB: keep data out of the app"
                )
            files.append(File(inside, data))
    return Bundle(tuple(sorted(files, key=lambda file: file.path)))
