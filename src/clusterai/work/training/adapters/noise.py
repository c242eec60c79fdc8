"""The key stream that noise is drawn from: ChaCha20 under the seed that the vault's noise key gives this round."""

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from clusterai.work.training.core.privacy import discrete_gaussian


def drawn(seed: bytes, count: int) -> npt.NDArray[np.int64]:
    """One vault's share of a round's noise. Who holds the vault's noise key can draw it again.

    Args:
        seed: 32 bytes, of this round alone.
    """
    stream = Cipher(ChaCha20(seed, bytes(16)), mode=None).encryptor().update(bytes(8 * count))
    return discrete_gaussian(stream, count)
