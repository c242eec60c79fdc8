"""What a tenant left in `out`, taken without trusting a byte of it.

The walk goes by descriptors and never by paths, opens with O_NOFOLLOW, and takes plain files only: a link to
/etc/shadow, a device, a pipe that never ends and a name with `..` are named as skipped, not opened. All processes of
the task are dead by then, so nothing can be swapped under the walk.
"""

import os
import stat
from collections.abc import Iterator

from clusterai.sandbox.adapters.store import BlobStore, DiskFull, StoreFull
from clusterai.sandbox.core.spec import MAX_DEPTH, Limits, Output, is_file_name

MOST_SKIPPED = 100


class TooMuch(ValueError):
    """What lies in `out` is more than the task may leave."""


def collect(volume: int, store: BlobStore, limits: Limits) -> tuple[tuple[Output, ...], tuple[str, ...]]:
    """The plain files under `out`, stored, and the names of what was not taken.

    Args:
        volume: a descriptor of the job's volume.

    Raises:
        TooMuch: the files say they are larger than the volume (holes in a sparse file count), or the store is full.
        DiskFull: that is the node's fault, not the tenant's.
    """
    outputs: list[Output] = []
    skipped: list[str] = []
    try:
        out = os.open("out", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=volume)
    except OSError:
        return (), ("out",)
    left = limits.disk_bytes
    try:
        for name, descriptor, size in _walk(out, "", skipped, 1):
            left -= size
            if left < 0:
                raise TooMuch(
                    f"the files in out are larger than disk_bytes = {limits.disk_bytes}: don't leave holes"
                )
            outputs.append(Output(name, store.put_descriptor(descriptor), size))
    except DiskFull:
        raise
    except StoreFull as error:
        raise TooMuch(f"this node can't store what out holds: {error}") from None
    finally:
        os.close(out)
    return tuple(sorted(outputs, key=lambda output: output.name)), tuple(sorted(skipped)[:MOST_SKIPPED])


def _walk(folder: int, prefix: str, skipped: list[str], depth: int) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        full = prefix + name
        mode = os.lstat(name, dir_fd=folder).st_mode
        if not is_file_name(name) or not (stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and depth < MAX_DEPTH)):
            if len(skipped) < MOST_SKIPPED:
                skipped.append(full.encode("utf-8", "replace").decode()[:200])
            continue
        try:
            descriptor = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
            )
        except PermissionError:
            skipped.append(full[:200])
            continue
        try:
            if stat.S_ISDIR(mode):
                yield from _walk(descriptor, full + "/", skipped, depth + 1)
            else:
                yield full, descriptor, os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
