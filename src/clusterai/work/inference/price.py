"""What a generation costs: whole units of the token per model token, in and out. No rounding, no floats."""

import msgspec

from clusterai.work.inference.spec import Generation, Usage


class Price(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Smallest units of the token per model token, as a provider's offer states them."""

    input_wei: int
    output_wei: int


def cost_wei(usage: Usage, price: Price) -> int:
    """What the receipt of this usage asks for. Tokens from the cache cost the same: nobody can check that claim."""
    return usage.prompt_tokens * price.input_wei + usage.answer_tokens * price.output_wei


def cap_wei(generation: Generation, price: Price) -> int:
    """The most that this generation can cost: the order's cap."""
    prompt = len(generation.prompt) + len(generation.so_far)
    most = Usage(prompt, 0, generation.max_tokens - len(generation.so_far))
    return cost_wei(most, price)


def recount(generation: Generation, answer: tuple[int, ...]) -> Usage:
    """The usage that an honest receipt for these new tokens states; gateway and validator both count anew."""
    return Usage(len(generation.prompt) + len(generation.so_far), 0, len(answer))
