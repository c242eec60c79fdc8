"""Amounts are `int` of the token's smallest unit; this is how people see them.

1 CLAI = 10**9 of it (9 decimals: a token count of 10**9 keeps every amount within 63 bits). Multiplication by a rate
rounds up where the payer pays and down where a receiver gets.
"""

from decimal import Decimal, InvalidOperation, Overflow

DECIMALS = 9
WEI_PER_TOKEN = 10**DECIMALS
SYMBOL = "CLAI"
MOST_WEI = 2**63


class BadAmount(ValueError):
    """An amount is a decimal number with at most 9 places, such as 2.5, and below 2**63 of the smallest unit."""


def show(amount_wei: int) -> str:
    """Whole tokens with up to 6 significant decimals, never rounded to zero: `0.000012 CLAI`."""
    whole = Decimal(amount_wei) / WEI_PER_TOKEN
    text = f"{whole:.6f}".rstrip("0").rstrip(".")
    if amount_wei and text in ("0", "-0"):
        text = f"{whole:.2e}"
    return f"{text} {SYMBOL}"


def parse(text: str) -> int:
    """Tokens as a person writes them, in wei.

    Raises:
        BadAmount: not a number, negative, finer than 1 wei, or more than can exist.
    """
    try:
        amount = Decimal(text.removesuffix(SYMBOL).strip()) * WEI_PER_TOKEN
    except (InvalidOperation, Overflow):
        raise BadAmount(BadAmount.__doc__) from None
    # The bound stands before int(): 1e999999 would keep it busy for minutes.
    if not amount.is_finite() or not 0 <= amount < MOST_WEI or amount != amount.to_integral_value():
        raise BadAmount(BadAmount.__doc__)
    return int(amount)
