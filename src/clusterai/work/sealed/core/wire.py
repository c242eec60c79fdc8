"""A ciphertext's bytes: its residues and nothing else, so that there is nothing to get wrong but a residue.

    c0[0] c0[1] ... c0[degree - 1] c1[0] ... c1[degree - 1]        each 7 bytes, little end first, below the prime; as SEAL holds
                                                                  them (number-theoretic transform)

A library's own serialisation has headers, sizes, levels, scales and compression that a peer may lie in; a peer's never reaches it. The
length is the ring's, each residue is compared, and a second half of zeros (whose "decryption" needs no key) is refused.
"""

import numpy as np
from numpy.typing import NDArray

from clusterai.work.sealed.core.security import RESIDUE_BYTES, Ring

Residues = NDArray[np.uint64]


class NoCiphertext(ValueError):
    """These bytes are no ciphertext of the model's ring: {why}."""


def residues_of(ring: Ring, data: bytes) -> Residues:
    """Read a stranger's ciphertext: (2 * degree,).

    Raises:
        NoCiphertext: of another length, a residue isn't below the prime, or there is no second half.
    """
    if len(data) != ring.ciphertext_bytes:
        raise NoCiphertext(f"{len(data)} bytes; at degree {ring.degree} there are {ring.ciphertext_bytes}")
    wide = np.zeros((2 * ring.degree, 8), np.uint8)
    wide[:, :RESIDUE_BYTES] = np.frombuffer(data, np.uint8).reshape(-1, RESIDUE_BYTES)
    found = wide.view("<u8").ravel().astype(np.uint64)
    if int(found.max()) >= ring.prime:
        raise NoCiphertext("a residue isn't below the modulus")
    if not found[ring.degree :].any():
        raise NoCiphertext("it hides nothing: its second half is zero")
    return found


def bytes_of(ring: Ring, residues: Residues) -> bytes:
    assert residues.shape == (2 * ring.degree,)
    return residues.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :RESIDUE_BYTES].tobytes()
