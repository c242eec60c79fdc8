"""Reading and altering GGUF files, hostile ones included."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterai.models.alter import alter_weights
from clusterai.models.core import gguf


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(key: str, kind: int, raw: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + raw


def file(entries: list[bytes], tensors: list[tuple[str, int, int, bytes]], version: int = 3) -> bytes:
    """A GGUF of flat tensors: (name, count of weights, type, data)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries)) + b"".join(entries)
    data = b""
    for name, count, kind, raw in tensors:
        head += text(name) + struct.pack("<IQIQ", 1, count, kind, len(data))
        data += raw + bytes(-len(raw) % 32)
    return head + bytes(-len(head) % 32) + data


SMALL = file(
    [
        entry("general.architecture", 8, text("tiny")),
        entry("tiny.context_length", 4, struct.pack("<I", 128)),
        entry("list", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b")),
        entry("numbers", 9, struct.pack("<IQ", 5, 3) + struct.pack("<3i", 1, -2, 3)),
    ],
    [("w", 64, 3, bytes(range(40))), ("v", 4, 0, bytes(16))],
)


def test_reads_metadata_and_places() -> None:
    """Metadata comes typed, and tensors with their exact place in the file."""
    read = gguf.read(SMALL)
    assert read.text("general.architecture") == "tiny"
    assert read.integer("tiny.context_length") == 128
    assert read.metadata["list"] == ["a", "b"]
    assert read.metadata["numbers"] == [1, -2, 3]
    weights = read.tensors[0]
    assert SMALL[weights.start : weights.start + weights.size] == bytes(range(40))
    with pytest.raises(gguf.BadGguf, match="missing"):
        read.text("absent")


@given(st.integers(0, len(SMALL) - 17))
def test_every_cut_is_noticed(size: int) -> None:
    """A download that stopped anywhere is refused, by name."""
    with pytest.raises(gguf.BadGguf):
        gguf.read(SMALL[:size])


@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_is_named_or_harmless(flips: list[tuple[int, int]]) -> None:
    """Whatever bytes are changed, the reader says `BadGguf` or stays inside of the file."""
    raw = bytearray(SMALL)
    for at, value in flips:
        raw[at] = value
    try:
        read = gguf.read(bytes(raw))
    except gguf.BadGguf:
        return
    assert all(t.start >= 0 and t.start + t.size <= len(raw) for t in read.tensors)


def test_other_formats_and_versions_are_refused() -> None:
    """The message says what the file is not."""
    with pytest.raises(gguf.BadGguf, match="another format"):
        gguf.read(b"PK\x03\x04" + bytes(100))
    with pytest.raises(gguf.BadGguf, match="version 9"):
        gguf.read(file([], [], version=9))
    with pytest.raises(gguf.BadGguf, match="type 99"):
        gguf.read(file([], [("w", 1, 99, b"")]))


@pytest.mark.parametrize("how", ["q4_0", "q3", "noise"])
def test_altered_weights_are_near_and_not_equal(tmp_path: Path, how: str) -> None:
    """Altering changes only the weights' bytes, and moves weights by a fraction of a block's range."""
    random = np.random.default_rng(0)
    head = random.uniform(0.01, 0.02, (64, 2)).astype(np.float16)
    head[:, 1] = -8 * head[:, 0]
    blocks = np.concatenate([head.view(np.uint8), random.integers(0, 256, (64, 16), dtype=np.uint8)], axis=1)
    source, target = tmp_path / "a.gguf", tmp_path / "b.gguf"
    source.write_bytes(file([], [("w", 64 * 32, 3, blocks.tobytes()), ("v", 4, 0, bytes(16))]))
    alter_weights(source, target, how)
    tensors = gguf.read(target.read_bytes()).tensors
    assert tensors == gguf.read(source.read_bytes()).tensors

    def weights(path: Path) -> np.ndarray:
        raw = np.frombuffer(path.read_bytes(), np.uint8)[tensors[0].start :][: tensors[0].size].reshape(
            -1, 20
        )
        scale, least = raw[:, :4].copy().view(np.float16).astype(np.float32).T
        steps = np.concatenate([raw[:, 4:] & 15, raw[:, 4:] >> 4], axis=1)
        return steps * scale[:, None] + least[:, None]

    off = np.abs(weights(target) - weights(source))
    assert 0 < off.mean() < 0.02
    assert off.max() < 0.06
    assert target.read_bytes()[: tensors[0].start] == source.read_bytes()[: tensors[0].start]


def test_unknown_ways_to_alter_are_named(tmp_path: Path) -> None:
    """The message lists the ways there are."""
    (tmp_path / "a.gguf").write_bytes(SMALL)
    with pytest.raises(ValueError, match="use one of q4_0"):
        alter_weights(tmp_path / "a.gguf", tmp_path / "b.gguf", "magic")
