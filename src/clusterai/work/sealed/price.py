"""What an answer costs: the bytes that came, and the products that were computed, both in thousands of the ring's degree.

A provider can't see how many inputs a ciphertext holds, so whoever packs them well pays less for each.
"""

from collections.abc import Sequence

from clusterai.work.packed import Unpackable, bytes_of
from clusterai.work.sealed.spec import Sealed


def units(request: Sealed) -> tuple[int, int]:
    """(input units, output units) of a whole answer."""
    weight = request.degree // 1_024
    asked = len(request.ciphertexts)
    return weight * asked, weight * asked * request.answers


def recount(request: Sealed, answer: Sequence[int]) -> tuple[int, int]:
    """(input units, output units) as an honest receipt states them: half an answer is worth nothing."""
    try:
        whole = len(bytes_of(answer)) == request.answer_bytes
    except Unpackable:
        whole = False
    return units(request) if whole else (0, 0)


def cap_wei(request: Sealed, input_wei: int, output_wei: int) -> int:
    """The most that this request can cost: the order's cap."""
    taken, made = units(request)
    return taken * input_wei + made * output_wei
