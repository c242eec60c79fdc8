"""What vectors cost: the tokens of the texts that were embedded, and nothing for the vectors themselves.

Who sends only some of the vectors is paid only for their texts.
"""

from clusterai.work.embedding.spec import Embedding


def recount(request: Embedding, answer: tuple[int, ...]) -> tuple[int, int]:
    """(input units, output units) as an honest receipt for this answer states them."""
    return sum(map(len, request.texts[: len(answer) // request.size])), 0


def cap_wei(request: Embedding, input_wei: int, output_wei: int) -> int:
    """The most that this request can cost: the order's cap."""
    return sum(map(len, request.texts)) * input_wei
