"""Python in a pinned job: the clock stands where the spec says and chance comes from its seed, so that a second run is the same.

The clock moves a microsecond each time it is read, as it does for WASM modules. What programs measure durations with
(`monotonic`, `perf_counter`) is left alone: it must not influence what they write.
"""

import datetime
import hashlib
import itertools
import os
import random
import time

_CLOCK_NS = int(os.environ.get("CLUSTERAI_CLOCK_S", "0")) * 10**9
_reads = itertools.count()
_key = f"{os.environ.get('CLUSTERAI_SEED', '0')}/{os.environ.get('CLUSTERAI_SEGMENT', '1')}".encode()
_draws = itertools.count()
_RealDate = datetime.date
_RealDatetime = datetime.datetime


def _time_ns() -> int:
    return _CLOCK_NS + next(_reads) * 1000


def _time() -> float:
    return _time_ns() / 1e9


def _urandom(size: int, /) -> bytes:
    found = b""
    while len(found) < size:
        found += hashlib.blake2b(next(_draws).to_bytes(8, "big"), key=_key[:64]).digest()
    return found[:size]


class _Alike(type):
    """Real dates count as ours: libraries written in C make them."""

    _real: type = object

    def __instancecheck__(cls, instance: object) -> bool:
        return (
            isinstance(instance, cls._real) if "_real" in vars(cls) else super().__instancecheck__(instance)
        )

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, cls._real) if "_real" in vars(cls) else super().__subclasscheck__(other)


class _Datetime(_RealDatetime, metaclass=_Alike):
    _real = _RealDatetime

    @classmethod
    def now(cls, tz: "datetime.tzinfo | None" = None) -> "_Datetime":
        return cls.fromtimestamp(_time(), tz)

    @classmethod
    def utcnow(cls) -> "_Datetime":
        return cls.fromtimestamp(_time(), datetime.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> "_Datetime":
        return cls.fromtimestamp(_time())


class _Date(_RealDate, metaclass=_Alike):
    _real = _RealDate

    @classmethod
    def today(cls) -> "_Date":
        return cls.fromtimestamp(_time())


_Datetime.__name__ = _Datetime.__qualname__ = "datetime"
_Date.__name__ = _Date.__qualname__ = "date"
_Datetime.__module__ = _Date.__module__ = "datetime"

if "CLUSTERAI_CLOCK_S" in os.environ:
    time.time = _time
    time.time_ns = _time_ns
    datetime.datetime = _Datetime
    datetime.date = _Date
    os.urandom = _urandom
    setattr(random, "_urandom", _urandom)  # noqa: B010  it bound the name before we could change it
    random.seed(int.from_bytes(_urandom(16), "big"))
