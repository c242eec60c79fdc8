"""How much one key may ask: requests and tokens a minute, and how many at once."""

from typing import Annotated

import msgspec
from msgspec import Meta

Rate = Annotated[int, Meta(ge=0, le=10**12)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a key may use. Zero is unlimited.

    Attributes:
        requests_per_minute: requests.
        tokens_per_minute: prompt tokens plus the most that may be answered.
        at_once: requests that run side by side.
    """

    requests_per_minute: Rate = 600
    tokens_per_minute: Rate = 1_000_000
    at_once: Rate = 64


class Bucket:
    """A minute's allowance that refills evenly. Clock seconds come from outside."""

    __slots__ = ("_full_at_s", "_rate", "limit")

    def __init__(self, per_minute: int) -> None:
        self.limit = per_minute
        self._rate = per_minute / 60
        self._full_at_s = 0.0

    def take(self, amount: int, now_s: float) -> float:
        """Take `amount`, or say how many seconds until that is possible; 0 means taken.

        More than a minute's allowance is taken from a full bucket, so that it isn't refused for ever.
        """
        if not self.limit:
            return 0.0
        amount = min(amount, self.limit)
        missing_s = max(0.0, self._full_at_s - now_s)
        left = self.limit - missing_s * self._rate
        if left + 1e-9 < amount:
            return (amount - left) / self._rate
        self._full_at_s = max(self._full_at_s, now_s) + amount / self._rate
        return 0.0

    def remaining(self, now_s: float) -> int:
        return max(0, int(self.limit - self.reset_s(now_s) * self._rate + 1e-9))

    def reset_s(self, now_s: float) -> float:
        """Seconds until it is full again."""
        return max(0.0, self._full_at_s - now_s)


class Usage:
    """One key's buckets and running requests."""

    __slots__ = ("limits", "requests", "running", "tokens")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = Bucket(limits.requests_per_minute)
        self.tokens = Bucket(limits.tokens_per_minute)
        self.running = 0

    def headers(self, now_s: float) -> list[tuple[bytes, bytes]]:
        """OpenAI's x-ratelimit headers; none for what is unlimited."""
        found: list[tuple[bytes, bytes]] = []
        for name, bucket in ((b"requests", self.requests), (b"tokens", self.tokens)):
            if bucket.limit:
                found += [
                    (b"x-ratelimit-limit-" + name, b"%d" % bucket.limit),
                    (b"x-ratelimit-remaining-" + name, b"%d" % bucket.remaining(now_s)),
                    (b"x-ratelimit-reset-" + name, b"%dms" % (bucket.reset_s(now_s) * 1000)),
                ]
        return found
