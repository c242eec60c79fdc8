"""What requests and answers of all kinds share: bounds that name the field, and usage."""

from typing import Literal

import msgspec

MOST_TOKENS = 1_048_576

FinishReason = Literal["stop", "length", "cancelled"]
"""`stop`: it is complete. `length`: a limit ended it. `cancelled`: the client."""


class OutOfRange(ValueError):
    """`field` is `value`; make it between `low` and `high`."""

    def __init__(self, field: str, value: object, low: object, high: object) -> None:
        super().__init__(f"{field} is {value!r}; make it between {low} and {high}")
        self.field = field
        self.value, self.low, self.high = value, low, high


def within(field: str, value: int, low: int, high: int) -> None:
    """
    Raises:
        OutOfRange: it isn't.
    """
    if not low <= value <= high:
        raise OutOfRange(field, value, low, high)


class Usage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one order used, in tokens.

    `prompt_tokens` counts all input; `cached_tokens` of those were already in the engine's cache (said by the
    provider, not proven, and so not a matter of price); `answer_tokens` counts the new tokens, the one that ends the
    answer included.
    """

    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int

    def __post_init__(self) -> None:
        within("prompt_tokens", self.prompt_tokens, 0, MOST_TOKENS)
        within("cached_tokens", self.cached_tokens, 0, self.prompt_tokens)
        within("answer_tokens", self.answer_tokens, 0, MOST_TOKENS)
