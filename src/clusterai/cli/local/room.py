"""Whether the disk of a data folder has room for a network; else said so, and nothing of it begun."""

import contextlib
import errno
import shutil
from collections.abc import Generator
from pathlib import Path

from clusterai.cli.failure import Failure
from clusterai.cli.settings import command
from clusterai.sandbox import SPARE_BYTES

LEAST_BYTES = 2 * SPARE_BYTES
"""What the daemons' stores leave free, and as much again for journals, which are measured to begin with less than 2 MB."""
MIB = 1 << 20


@contextlib.contextmanager
def needed(root: Path) -> Generator[None]:
    """Around what fills a data folder.

    Raises:
        Failure: the disk is full, before or where that is why it failed.
    """
    check(root)
    try:
        yield
    except Failure:
        check(root)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full(root) from error
        raise


def check(root: Path) -> None:
    """
    Raises:
        Failure: a network in this folder can't start.
    """
    if is_full(root):
        raise full(root)


def is_full(root: Path) -> bool:
    return free_bytes(root) < LEAST_BYTES


def full(root: Path) -> Failure:
    return Failure(
        f"the disk of {root} is full: {free_bytes(root) // MIB} MiB are free, and a network needs {LEAST_BYTES // MIB}",
        "daemons that can't write down what they decide end; nothing that they had written is lost",
        f"make room on that disk, or move the folder to another and name it by `--data`; `{command('up', root)}` then goes on",
    )


def free_bytes(root: Path) -> int:
    place = root
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
