"""Secrets that a gateway makes for itself."""

import os
import secrets
from pathlib import Path

SIZE = 32


def made_secret(path: Path) -> bytes:
    """The 32 bytes in a file of hex, made there the first time, readable by its owner alone.

    Raises:
        ValueError: the file holds something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(SIZE) + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    try:
        found = bytes.fromhex(path.read_text().strip())
    except ValueError:
        found = b""
    if len(found) != SIZE:
        raise ValueError(f"{path} must hold {SIZE} bytes of hex: move it away, and a new one is made")
    return found
