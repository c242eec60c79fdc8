"""Altered weights, to show and to test that they are caught: what a provider who saves memory would serve.

    q4_0   every block of 32 weights rounded again, to 16 steps around zero: another quantization of the same model
    q3     8 steps instead of 16: a smaller model by a quarter
    noise  each block's scale off by 5 %: "almost the same weights"

The result is a GGUF of the same shape and another address.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clusterai.models.core import gguf

Blocks = NDArray[np.uint8]
"""(blocks, bytes of one block)."""

_SCALED = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"}
NOISE = 0.05


def alter_weights(source: Path, target: Path, how: str) -> None:
    """Write an altered copy of the GGUF `source` to `target`.

    Raises:
        ValueError: `how` is unknown, or the file has no tensor that it applies to.
    """
    if how not in WAYS:
        raise ValueError(f"weights can't be altered by {how!r}; use one of {', '.join(WAYS)}")
    fits, alter = WAYS[how]
    with source.open("rb") as file:
        tensors = gguf.read(np.memmap(file, np.uint8, mode="r").data).tensors
    chosen = [tensor for tensor in tensors if gguf.TYPES[tensor.type][0] in fits]
    if not chosen:
        raise ValueError(f"{how!r} needs tensors of type {', '.join(sorted(fits))}; {source.name} has none")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    data = np.memmap(target, np.uint8, mode="r+")
    for tensor in chosen:
        width = gguf.TYPES[tensor.type][2]
        part = data[tensor.start : tensor.start + tensor.size]
        part[:] = alter(np.array(part).reshape(-1, width), tensor.name).reshape(-1)
    data.flush()


def _requantize(blocks: Blocks, name: str) -> Blocks:
    """Q4_1 (scale, least, 4 bits) rounded to Q4_0's grid, whose 8th step is zero, in Q4_1's own layout."""
    weights = _weights(blocks)
    at = np.abs(weights).argmax(axis=1)
    scale = weights[np.arange(len(weights)), at] / -8
    scale = np.where(scale == 0, np.float32(1e-8), scale).astype(np.float16).astype(np.float32)
    steps = np.clip(np.rint(weights / scale[:, None]) + 8, 0, 15).astype(np.uint8)
    return _pack(scale, -8 * scale, steps)


def _coarsen(blocks: Blocks, name: str) -> Blocks:
    steps = np.rint(_steps(blocks) * np.float32(7 / 15)).astype(np.uint8)
    scale, least = _head(blocks)
    return _pack(scale * np.float32(15 / 7), least, steps)


def _jitter(blocks: Blocks, name: str) -> Blocks:
    random = np.random.default_rng(list(name.encode()))
    blocks = blocks.copy()
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    scale *= 1 + NOISE * random.standard_normal(scale.shape, dtype=np.float32)
    blocks[:, :2] = scale.astype(np.float16).view(np.uint8)
    return blocks


def _head(blocks: Blocks) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    head = blocks[:, :4].copy().view(np.float16).astype(np.float32)
    return head[:, 0], head[:, 1]


def _steps(blocks: Blocks) -> NDArray[np.float32]:
    packed = blocks[:, 4:]
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)


def _weights(blocks: Blocks) -> NDArray[np.float32]:
    scale, least = _head(blocks)
    return _steps(blocks) * scale[:, None] + least[:, None]


def _pack(scale: NDArray[np.float32], least: NDArray[np.float32], steps: NDArray[np.uint8]) -> Blocks:
    head = np.stack([scale, least], axis=1).astype(np.float16).view(np.uint8)
    packed = (steps[:, :16] | (steps[:, 16:] << 4)).astype(np.uint8)
    return np.concatenate([head, packed], axis=1)


WAYS: dict[str, tuple[set[str], Callable[[Blocks, str], Blocks]]] = {
    "q4_0": ({"Q4_1"}, _requantize),
    "q3": ({"Q4_1"}, _coarsen),
    "noise": (_SCALED, _jitter),
}
