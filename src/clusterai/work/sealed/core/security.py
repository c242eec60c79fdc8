"""Which parameters there are, and why 128 bits are needed to break them. Nobody who asks or answers chooses any.

A ring's degree says all: its modulus is one prime, named here, and so a peer's message has no parameters that could be weak. The table
is that of the HomomorphicEncryption.org standard (Albrecht et al. 2018, table 1; ternary secret, error of deviation 3.2, classical
attacks): the most bits that the modulus may have at each degree. It is checked here and, once more, by SEAL itself.

One prime suffices since an evaluation multiplies once, by plain numbers: nothing is relinearised, rotated or rescaled, so there are no
evaluation keys, and a key is made for one request and thrown away.
"""

import msgspec

MOST_MODULUS_BITS = {1_024: 27, 2_048: 54, 4_096: 109, 8_192: 218, 16_384: 438}
"""Degree of the ring to bits of the modulus, at 128 bits of security."""

RESIDUE_BYTES = 7
"""Of one residue on the wire: primes are below 2^56."""


class Ring(msgspec.Struct, frozen=True):
    """Polynomials modulo X^degree + 1, their coefficients modulo one prime."""

    degree: int
    prime: int

    @property
    def prime_bits(self) -> int:
        return self.prime.bit_length()

    @property
    def ciphertext_bytes(self) -> int:
        return 2 * self.degree * RESIDUE_BYTES


RINGS = {
    2_048: Ring(2_048, 18_014_398_509_404_161),
    4_096: Ring(4_096, 72_057_594_037_641_217),
    8_192: Ring(8_192, 72_057_594_037_616_641),
}


def weakness(ring: Ring) -> str | None:
    """Why these parameters aren't to be used; None where they have 128 bits of security and SEAL can compute with them."""
    most = MOST_MODULUS_BITS.get(ring.degree)
    if most is None:
        return f"degree {ring.degree} isn't in the standard's table"
    if ring.prime_bits > most:
        return f"{ring.prime_bits} bits of modulus at degree {ring.degree}; 128 bits of security allow {most}"
    if ring.prime_bits > 8 * RESIDUE_BYTES:
        return f"{ring.prime_bits} bits of modulus don't fit {RESIDUE_BYTES} bytes"
    if ring.prime % (2 * ring.degree) != 1:
        return f"{ring.prime} isn't 1 modulo {2 * ring.degree}"
    if not is_prime(ring.prime):
        return f"{ring.prime} isn't prime"
    return None


def is_prime(number: int) -> bool:
    """Miller-Rabin with bases that decide every number below 3.3 * 10^24 (Sorenson and Webster 2015)."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
    if number < 2 or any(number % base == 0 for base in bases):
        return number in bases
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(pow(base, odd, number), number, twos) for base in bases)


def _passes(power: int, number: int, twos: int) -> bool:
    if power in (1, number - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False
