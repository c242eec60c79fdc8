"""Changes MessagePack or JSON as the value that it is: a flipped byte alone is hardly ever a message again."""

from collections.abc import Callable
from random import Random
from typing import Any, cast

import msgspec

EDGES = (0, 1, -1, 127, 128, 255, 256, 2**31, 2**32 - 1, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))
ODD: tuple[Any, ...] = (None, True, False, "", "\x00", "é", b"", 1.5, float("nan"), [], {})


def mutated(data: bytes, seed: int, plain: Callable[[bytes], bytes], codec: Any = msgspec.msgpack) -> bytes:
    """One change to the value, its first byte (which names a kind) aside; else whatever `plain` does to bytes."""
    random = Random(seed)
    head = data[: random.randrange(2)]
    try:
        value = codec.decode(data[len(head) :])
        changed = codec.encode(_changed(value, random), order="deterministic")
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError, OverflowError):
        return plain(data)
    return head + changed if random.random() < 0.8 else plain(head + changed)


def _changed(value: Any, random: Random) -> Any:
    if random.random() < 0.05:
        return random.choice(ODD)
    if isinstance(value, list) and value:
        items = cast("list[Any]", value)
        at = random.randrange(len(items))
        match random.randrange(6):
            case 0:
                return items[:at] + items[at + 1 :]
            case 1:
                return [*items, items[at]]
            case _:
                return [*items[:at], _changed(items[at], random), *items[at + 1 :]]
    if isinstance(value, dict) and value:
        fields = cast("dict[Any, Any]", value)
        key = random.choice(list(fields))
        return {**fields, key: _changed(fields[key], random)}
    if isinstance(value, int):
        return random.choice((*EDGES, value + 1, value - 1))
    if isinstance(value, bytes):
        size = random.choice((0, 19, 20, 21, 31, 32, 33, 64, 65, 66, len(value)))
        return (
            (value * 3 + random.randbytes(66))[:size]
            if random.random() < 0.5
            else random.randbytes(len(value))
        )
    if isinstance(value, str):
        return random.choice(
            (value + "x", value[:-1], value * 50, "\udfff" if random.random() < 0.1 else "é")
        )
    return random.choice(ODD)
