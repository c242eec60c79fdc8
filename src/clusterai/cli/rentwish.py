"""What is wanted of rented machines, from the flags of a command line: `offers` and `rent` read them alike."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar, get_args

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.protocol import units
from clusterai.protocol.money import BadAmount, parse
from clusterai.sdk.offershapes import ATTESTED as ATTESTED_PATTERN
from clusterai.sdk.offershapes import LEAST_S, MOST_S, FieldName, PlanRequest, Wanted

HOUR_S = 3_600
FIELDS: tuple[str, ...] = get_args(FieldName)
ATTESTED = re.compile(ATTESTED_PATTERN)
T = TypeVar("T")


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """As they were typed; None where nothing was.

    Attributes:
        gpu: a kind, `h100`, or so many of it, `h100:8`.
        near: a round trip, `20ms`.
        region: one or several between commas.
        measured: fields that somebody must have measured, between commas.
        attested: `label` or `label@0x…` of the attestor, between commas.
        one_price: buy the group at one price for all, of as many operators as machines; needs `max_price`.
        same_operator: `no` is machines of as many operators as machines, a number at most so many of one.
    """

    nodes: int = 1
    hours: str = "1"
    cpu: str | None = None
    memory: str | None = None
    disk: str | None = None
    gpu: str | None = None
    max_price: str | None = None
    region: str | None = None
    near: str | None = None
    max_rtt: str | None = None
    measured: str | None = None
    attested: str | None = None
    same_operator: str | None = None
    one_price: bool = False


def wanted(flags: Flags) -> Wanted:
    """What each machine has to be.

    Raises:
        Failure: exit code 2.
    """
    kind, _, number = (flags.gpu or "").lower().partition(":")
    if number and not (number.isascii() and number.isdigit() and len(number) < 4):
        raise _wrong("--gpu", flags.gpu, "write it as h100 or h100:8")
    return _built(
        Wanted,
        cpu_milli=_read("--cpu", flags.cpu, units.milli, 0),
        memory_bytes=_read("--mem", flags.memory, lambda it: units.size(it, "G"), 0),
        disk_bytes=_read("--disk", flags.disk, lambda it: units.size(it, "G"), 0),
        gpu=kind,
        gpus=int(number) if number else 1 if kind else 0,
        measured=_fields(flags.measured),
    )


def _fields(text: str | None) -> tuple[str, ...]:
    found = _names(text)
    for name in found:
        if name not in FIELDS:
            raise _wrong("--measured", name, f"what can be measured: {', '.join(FIELDS)}")
    return found


def regions(flags: Flags) -> tuple[str, ...]:
    return _names(flags.region)


def attested(flags: Flags) -> tuple[str, ...]:
    found = _names(flags.attested)
    for name in found:
        if not ATTESTED.fullmatch(name):
            raise _wrong("--attested", name, "write it as soc2-type2, or soc2-type2@0x… of who attests it")
    return found


def near_us(flags: Flags) -> int | None:
    return None if flags.near is None else _milliseconds("--near", flags.near)


def plan_request(flags: Flags, *, hold: bool = True) -> PlanRequest:
    """What the gateway is asked.

    Args:
        hold: whether the machines are held for a minute, to be booked.

    Raises:
        Failure: exit code 2, with the flag and how to write it.
    """
    if flags.one_price and flags.max_price is None:
        raise Failure("one price for all needs --max-price", "a share of it is the reserve", code=Exit.USAGE)
    return _built(
        PlanRequest,
        nodes=flags.nodes,
        duration_s=seconds(flags.hours),
        need=wanted(flags),
        max_price_wei=None if flags.max_price is None else _price(flags.max_price),
        regions=regions(flags),
        attested=attested(flags),
        near_us=near_us(flags),
        max_rtt_us=None if flags.max_rtt is None else _milliseconds("--max-rtt", flags.max_rtt),
        max_per_operator=_per_operator(flags.same_operator),
        pricing="uniform" if flags.one_price else "posted",
        hold=hold,
    )


def seconds(hours: str) -> int:
    """`2`, `0.5`, and durations such as `90m` or `1d`."""
    found = _times(hours, HOUR_S)
    if found is None:
        found = _read("--hours", hours, units.duration, 0)
    if not LEAST_S <= found <= MOST_S:
        raise _wrong("--hours", hours, "between a minute and 30 days, as in 2, 0.5 or 90m")
    return found


def _price(text: str) -> int:
    try:
        return max(1, parse(text))
    except BadAmount as error:
        raise Failure(f"--max-price {text}: {error}", code=Exit.USAGE) from None


def _milliseconds(flag: str, text: str) -> int:
    found = _times(text.strip().lower().removesuffix("ms").strip(), 1_000)
    if found is None or not 1 <= found <= 2_000_000:
        raise _wrong(flag, text, "write it as 20ms, up to 2000ms")
    return found


def _times(text: str, factor: int) -> int | None:
    """Of a decimal number that isn't absurd."""
    try:
        found = Decimal(text) * factor
    except ArithmeticError:
        return None
    # The bound stands before int(): 1e99999 would keep it busy for minutes.
    return int(found) if found.is_finite() and 0 <= found < MOST_S * 1_000 else None


def _per_operator(text: str | None) -> int | None:
    match text:
        case None | "yes":
            return None
        case "no":
            return 1
        case _:
            if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= 100):
                raise _wrong("--same-operator", text, "yes, no, or at most how many machines of one")
            return int(text)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(it.strip().lower() for it in (text or "").split(",") if it.strip()))


def _read(flag: str, text: str | None, how: Callable[[str], int], default: int) -> int:
    if text is None:
        return default
    try:
        return how(text)
    except units.BadUnit as error:
        raise Failure(f"{flag} {text}: {error}", code=Exit.USAGE) from None


def _built(kind: type[T], **fields: object) -> T:
    """With the very bounds that the gateway has."""
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise Failure("that can't be asked for", str(error), "clusterai rent --help", Exit.USAGE) from None


def _wrong(flag: str, text: str | None, cure: str) -> Failure:
    return Failure(f"{flag} {text} isn't understood", "", cure, Exit.USAGE)
