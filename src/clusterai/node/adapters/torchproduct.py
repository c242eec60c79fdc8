"""Matrix products on a graphics card through torch, where torch and a card are; the same integers as on any processor."""

import importlib
from typing import Any

import numpy as np

from clusterai.audit.core.products import BLOCK, Product, Small, Wide


class NoGpu(RuntimeError):
    """No card can be used here: {why}."""


def gpu_product(gpu: int) -> Product:
    """
    Raises:
        NoGpu.
    """
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        raise NoGpu("torch isn't installed") from None
    if not torch.cuda.is_available() or gpu >= torch.cuda.device_count():
        raise NoGpu(f"torch sees {torch.cuda.device_count()} cards")
    return product(torch, f"cuda:{gpu}")


def product(torch: Any, device: str) -> Product:
    """Exact: float32 in blocks whose sums stay below 2^24, without the shortened mantissa of TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False

    def multiply(x: Small, m: Small) -> Wide:
        left, right = (torch.from_numpy(it).to(device).to(torch.float32) for it in (x, m))
        total = torch.zeros(x.shape, dtype=torch.int32, device=device)
        for at in range(0, x.shape[0], BLOCK):
            total += (left[:, at : at + BLOCK] @ right[at : at + BLOCK]).to(torch.int32)
        return np.asarray(total.cpu().numpy(), np.int32)

    return multiply
