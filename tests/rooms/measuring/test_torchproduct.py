"""The products of a graphics card, on a stand-in for torch that computes with numpy: the same integers, with TF32 off."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clusterai.audit.core.products import Challenge, answer, exact, expand
from clusterai.node.adapters.torchproduct import NoGpu, gpu_product, product
from clusterai.protocol.ids import Digest

SEED = Digest(bytes(32))


class Tensor:
    """As much of one as a product needs, on the device `cpu`."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def to(self, what: Any) -> "Tensor":
        return Tensor(self.values if isinstance(what, str) else self.values.astype(what))

    def __getitem__(self, key: Any) -> "Tensor":
        return Tensor(self.values[key])

    def __matmul__(self, other: "Tensor") -> "Tensor":
        return Tensor(self.values @ other.values)

    def __iadd__(self, other: "Tensor") -> "Tensor":
        self.values += other.values
        return self

    def cpu(self) -> "Tensor":
        return self

    def numpy(self) -> Any:
        return self.values


def zeros(shape: tuple[int, ...], dtype: Any, device: str) -> Tensor:
    return Tensor(np.zeros(shape, dtype))


def torch() -> Any:
    return SimpleNamespace(
        float32=np.float32,
        int32=np.int32,
        from_numpy=Tensor,
        zeros=zeros,
        backends=SimpleNamespace(cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=True))),
    )


@pytest.mark.parametrize("size", [16, 1_040])
def test_a_card_comes_to_the_same_integers(size: int) -> None:
    """Also beyond a block, where float32 alone would lose some."""
    x, m = expand(b"x", size), expand(b"m", size)
    library = torch()
    assert np.array_equal(product(library, "cpu")(x, m), exact(x, m))
    assert library.backends.cuda.matmul.allow_tf32 is False


def test_a_chain_on_a_card_has_the_same_commitments() -> None:
    """So that whoever checks it needn't know where it was made."""
    challenge = Challenge(SEED, 16, 4)
    assert answer(challenge, product(torch(), "cpu")) == answer(challenge)


def test_without_a_card_it_says_so() -> None:
    """A card that isn't there, or torch that isn't: a reason, and no crash."""
    with pytest.raises(NoGpu):
        gpu_product(200)
