"""keccak256, from C where there is a wheel for it: 1.5 us instead of 11, seven to twelve times for each answer."""

from collections.abc import Callable
from typing import Any, cast

Keccak = Callable[[bytes], bytes]

try:
    import sha3

    _new = cast("Callable[[bytes], Any]", sha3.keccak_256)  # pyright: ignore[reportUnknownMemberType]

    def _fast(data: bytes) -> bytes:
        return _new(data).digest()

    keccak: Keccak = _fast
except ImportError:  # no wheel for this platform, and nobody there to compile one
    from eth_hash.auto import keccak as _slow

    keccak = _slow

__all__ = ["keccak"]
