"""JSON-RPC parameters to values, strictly, as go-ethereum reads them."""

import re
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from clusterai.protocol.ids import Address

_QUANTITY = re.compile(r"0x(0|[1-9a-fA-F][0-9a-fA-F]{0,63})")
_DATA = re.compile(r"0x([0-9a-fA-F]{2})*")


class InvalidParams(ValueError):
    """{what} is missing or of the wrong form."""


class Tag(msgspec.Struct, frozen=True):
    """Which block: a number, or one of `latest`, `pending`, `earliest` (`safe` and `finalized` read as latest)."""

    number: int | None = None
    pending: bool = False


LATEST = Tag()


def quantity(value: object, what: str) -> int:
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise InvalidParams(f"{what}: give a hex number such as 0x1f, without leading zeros")
    return int(value, 16)


def data(value: object, what: str, size: int | None = None) -> bytes:
    if not isinstance(value, str) or not _DATA.fullmatch(value):
        raise InvalidParams(f"{what}: give bytes as hex digits in pairs after 0x")
    raw = bytes.fromhex(value[2:])
    if size is not None and len(raw) != size:
        raise InvalidParams(f"{what}: {len(raw)} bytes instead of {size}")
    return raw


def address(value: object, what: str) -> Address:
    return Address(data(value, what, 20))


def flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidParams(f"{what}: give true or false")
    return value


def storage_key(value: object) -> int:
    """A quantity or 32 bytes: clients send both."""
    if isinstance(value, str) and len(value) == 66:
        return int.from_bytes(data(value, "storage position", 32))
    return quantity(value, "storage position")


def tag(value: object) -> Tag:
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("blockNumber")
        return Tag(quantity(value, "blockNumber"))
    match value:
        case None | "latest" | "safe" | "finalized":
            return LATEST
        case "pending":
            return Tag(pending=True)
        case "earliest":
            return Tag(0)
        case _:
            return Tag(quantity(value, "block number"))


def members(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidParams(f"{what}: give an object")
    return cast("dict[str, Any]", value)


def items(value: object, what: str, limit: int) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidParams(f"{what}: give an array")
    found = cast("list[Any]", value)
    if len(found) > limit:
        raise InvalidParams(f"{what}: {len(found)} entries, the limit is {limit}")
    return found


def choice(value: object, what: str, size: int) -> tuple[bytes, ...]:
    """null: any; one value; or an array of alternatives."""
    if value is None:
        return ()
    if isinstance(value, list):
        alternatives = items(cast("object", value), what, 1000)
        return tuple(data(one, what, size) for one in alternatives if one is not None)
    return (data(value, what, size),)


def nth(params: Sequence[object], at: int) -> object:
    """A parameter, or None where the list is shorter."""
    return params[at] if at < len(params) else None
