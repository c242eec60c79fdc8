"""A model as files: numpy's own, and safetensors, which torch, JAX and Hugging Face's libraries read without running anything of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from clusterai.work.training.adapters.checkpoint import write

NUMPY, SAFETENSORS = "model.npz", "model.safetensors"
KINDS = frozenset("fiub")
"""Of numpy's types, those that safetensors has: reals, whole numbers, booleans."""


def save_model(folder: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> str:
    """Both files, each whole or as it was; why there is no safetensors, where its format can't hold these arrays.

    Args:
        about: goes into the safetensors' header, so that the file says where it comes from when it is alone.
    """
    aside = folder / f".{NUMPY}"
    with aside.open("wb") as file:
        np.savez(file, **dict(arrays))  # pyright: ignore[reportArgumentType]
    aside.replace(folder / NUMPY)
    strange = [
        name for name, array in arrays.items() if array.dtype.kind not in KINDS or array.dtype.itemsize > 8
    ]
    if strange or "__metadata__" in arrays:
        (folder / SAFETENSORS).unlink(missing_ok=True)
        return f"no {SAFETENSORS}: its format has no place for {', '.join(strange) or 'an array called __metadata__'}"
    # Little-endian and contiguous, as the format wants it.
    plain: dict[str, Any] = {
        name: np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).reshape(array.shape)
        for name, array in arrays.items()
    }
    write(folder / SAFETENSORS, save(plain, metadata=dict(about)))
    return ""
