"""Sizes, durations and numbers of things as people write them."""

import re
from decimal import Decimal, InvalidOperation

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([KMGTP]?)(I?)B?", re.IGNORECASE)
_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_DURATION = re.compile(
    r"(?:([0-9]{1,9})w)?(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?"
)
_SECONDS = (7 * 86_400, 86_400, 3600, 60, 1)


class BadUnit(ValueError):
    """{text} is no {what}."""


def size(text: str, unit: str = "") -> int:
    """Bytes: `512MB`, `2 GiB`, `1.5G`; powers of 1024 whether or not there is an i, as SkyPilot and dstack count.

    Args:
        unit: what a bare number counts, such as `G`.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise BadUnit(f"{text[:40]!r} is no size; write it as 512MB or 2GB")
    number, prefix, _ = found.groups()
    bare = text.strip()[-1].isdigit()
    return int(Decimal(number) * 1024 ** _POWER[unit.upper() if bare else prefix.upper()])


def duration(text: str) -> int:
    """Seconds: `90s`, `10m`, `1h30m`, `2d`; a bare number is seconds."""
    tidy = text.strip().lower()
    if tidy.isdecimal() and len(tidy) < 12:
        return int(tidy)
    found = _DURATION.fullmatch(tidy)
    if not tidy or not found:
        raise BadUnit(f"{text[:40]!r} is no duration; write it as 90s, 10m or 1h30m")
    return sum(
        int(number) * seconds for number, seconds in zip(found.groups(), _SECONDS, strict=True) if number
    )


def milli(text: str) -> int:
    """Thousandths: `0.5`, `2`, and `500m` as Kubernetes and Akash write them."""
    tidy = text.strip()
    try:
        thousandths = Decimal(tidy[:-1]) if tidy.endswith("m") else Decimal(tidy) * 1000
    except InvalidOperation:
        raise BadUnit(f"{text[:40]!r} is no number of cores; write it as 2, 0.5 or 500m") from None
    if (
        not thousandths.is_finite()
        or not 0 <= thousandths < 2**40
        or thousandths != thousandths.to_integral_value()
    ):
        raise BadUnit(f"{text[:40]!r} is no number of cores; write it as 2, 0.5 or 500m")
    return int(thousandths)


def show_size(size_bytes: int) -> str:
    for prefix in ("", "K", "M", "G", "T"):
        if size_bytes < 1024 or prefix == "T":
            return f"{size_bytes:.4g} {prefix}{'iB' if prefix else 'B'}"
        size_bytes /= 1024  # type: ignore[assignment]
    raise AssertionError("the last prefix returns")


def show_duration(seconds: float) -> str:
    """Two units at most: `2 h 5 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for unit, name, below, lesser in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name}" + (f" {rest} {lesser}" if rest else "")
    raise AssertionError("a minute or more")


def counted(count: float, what: str) -> str:
    """`1 core`, `2 cores`, `0.5 cores`; what is counted forms its plural with an s."""
    return f"{count:g} {what}{'s' * (count != 1)}"
