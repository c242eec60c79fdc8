"""CKKS by Microsoft SEAL, through TenSEAL's binding of it: keys, encryption, the product of a ciphertext and plain weights.

Only residues that `core.wire` has looked at get here. SEAL takes ciphertexts from files alone; the file is one in memory, and every byte of
it but the residues is written here, uncompressed: neither a peer's header nor a decompressor is ever met. So no child process is needed
to hold what a peer sends.
"""

import contextlib
import importlib
import os
import struct
from collections.abc import Generator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clusterai.work.sealed.core.security import Ring, weakness
from clusterai.work.sealed.core.slots import coefficients_of, slots_of
from clusterai.work.sealed.core.wire import Residues, bytes_of, residues_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC, _MAJOR, _MINOR = 0xA15E, 4, 3
_UNCOMPRESSED = 0
_MOST_STRAY = 0.25
"""Of a coefficient from its whole number after encoding; half would round to another."""


class Transparent(ValueError):
    """The product hides nothing: its ciphertext was made up, not encrypted."""


class Imprecise(ValueError):
    """Weights this large don't survive encoding as whole numbers: take fewer bits."""


class Scheme:
    """One ring. Ciphertexts go in and come out as bytes of `core.wire`; safe to use from several threads, since SEAL's parts are."""

    def __init__(self, ring: Ring) -> None:
        assert weakness(ring) is None, weakness(ring)
        # Loaded when it is needed: a library of 14 MB. It has no types.
        self._seal: Any = importlib.import_module("tenseal.sealapi")
        parameters = self._seal.EncryptionParameters(self._seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(ring.degree)
        parameters.set_coeff_modulus([self._seal.Modulus(ring.prime)])
        self._context: Any = self._seal.SEALContext(parameters, True, self._seal.SEC_LEVEL_TYPE.TC128)
        if not self._context.parameters_set():
            raise ValueError(f"SEAL refuses these parameters: {self._context.parameters_error_message()}")
        self.ring = ring
        self._encoder: Any = self._seal.CKKSEncoder(self._context)
        self._evaluator: Any = self._seal.Evaluator(self._context)
        self._parms: tuple[int, int, int, int] = tuple(self._context.first_parms_id())

    def encoded(self, coefficients: Ints) -> Any:
        """A plaintext with exactly these coefficients, of scale 1.

        Raises:
            Imprecise: they are so large that rounding might differ on another machine.
        """
        values = slots_of(coefficients.astype(np.float64)).tolist()
        plain = self._seal.Plaintext()
        self._encoder.encode(values, 1.0, plain)
        if np.abs(self._decoded(plain) - coefficients).max() > _MOST_STRAY:
            raise Imprecise(Imprecise.__doc__)
        return plain

    def keys(self) -> "Keys":
        """Fresh ones."""
        return Keys(self)

    def product_sum(self, ciphertexts: list[Any], weights: list[Any]) -> bytes:
        """The sum of each ciphertext times its weights.

        Args:
            ciphertexts: of `loaded`.  weights: of `encoded`.

        Raises:
            Transparent: see there.
        """
        try:
            total = self._seal.Ciphertext()
            self._evaluator.multiply_plain(ciphertexts[0], weights[0], total)
            for ciphertext, weight in zip(ciphertexts[1:], weights[1:], strict=True):
                part = self._seal.Ciphertext()
                self._evaluator.multiply_plain(ciphertext, weight, part)
                self._evaluator.add_inplace(total, part)
        except (RuntimeError, ValueError) as error:
            if "transparent" in str(error):
                raise Transparent(Transparent.__doc__) from None
            raise
        return self.saved(total)

    def summed(self, ciphertexts: list[Any]) -> bytes:
        total = self._seal.Ciphertext()
        self._evaluator.add_many(ciphertexts, total)
        return self.saved(total)

    def loaded(self, data: bytes) -> Any:
        """
        Raises:
            NoCiphertext: a stranger's nonsense.
        """
        residues = residues_of(self.ring, data)
        found = self._seal.Ciphertext()
        with _in_memory(self._file_of(residues)) as path:
            found.load(self._context, path)
        return found

    def saved(self, ciphertext: Any) -> bytes:
        count = 2 * self.ring.degree
        residues = np.fromiter((ciphertext[at] for at in range(count)), np.uint64, count)
        return bytes_of(self.ring, residues)

    def _decoded(self, plain: Any) -> Floats:
        return coefficients_of(np.array(self._encoder.decode_complex(plain)))

    def _file_of(self, residues: Residues) -> bytes:
        numbers = struct.pack("<Q", len(residues)) + residues.astype("<u8").tobytes()
        array = _headed(numbers)
        head = struct.pack("<4Q?QQQdQ", *self._parms, True, 2, self.ring.degree, 1, 1.0, 1)
        return _headed(head + array)


class Keys:
    """A secret key for one request, on the requester's machine. It isn't stored, shown or sent."""

    def __init__(self, scheme: Scheme) -> None:
        seal: Any = scheme._seal  # pyright: ignore[reportPrivateUsage]
        context: Any = scheme._context  # pyright: ignore[reportPrivateUsage]
        self._scheme = scheme
        self._seal: Any = seal
        secret = seal.KeyGenerator(context).secret_key()
        self._encryptor: Any = seal.Encryptor(context, secret)
        self._decryptor: Any = seal.Decryptor(context, secret)

    def encrypt(self, coefficients: Ints) -> bytes:
        found = self._seal.Ciphertext()
        self._encryptor.encrypt_symmetric(self._scheme.encoded(coefficients), found)
        return self._scheme.saved(found)

    def decrypt(self, data: bytes) -> Floats:
        """Coefficients, with CKKS's error.

        Raises:
            NoCiphertext: see `core.wire`.
        """
        plain = self._seal.Plaintext()
        self._decryptor.decrypt(self._scheme.loaded(data), plain)
        return self._scheme._decoded(plain)  # pyright: ignore[reportPrivateUsage]


def _headed(body: bytes) -> bytes:
    return (
        _HEADER.pack(_MAGIC, _HEADER.size, _MAJOR, _MINOR, _UNCOMPRESSED, 0, _HEADER.size + len(body)) + body
    )


@contextlib.contextmanager
def _in_memory(data: bytes) -> Generator[str]:
    file = os.memfd_create("ciphertext")
    try:
        os.write(file, data)
        yield f"/proc/self/fd/{file}"
    finally:
        os.close(file)
