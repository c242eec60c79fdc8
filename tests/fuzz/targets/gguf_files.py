"""A stranger's GGUF file."""

import contextlib

from clusterai.models.core.gguf import BadGguf, read
from tests.rooms.models.test_gguf import SMALL


def once(data: bytes) -> bool:
    """`BadGguf`, or tensors that lie inside of the file, each of its own place."""
    try:
        found = read(data)
    except BadGguf:
        return False
    for tensor in found.tensors:
        assert 0 <= tensor.start <= tensor.start + tensor.size <= len(data)
    for key in found.metadata:
        for ask in (found.text, found.integer):
            with contextlib.suppress(BadGguf):
                ask(key)
    return True


def seeds() -> list[bytes]:
    return [SMALL]
