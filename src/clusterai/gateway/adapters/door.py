"""Who comes in, and who pays: the step in front of every request, before its body is read into work.

A door looks at the headers and either admits the request to an account, or passes it on, or raises a `Fault`. There is one
now, for API keys. Payment by wallet (x402) is another door: it admits to an account that the payment funds, and adds its
headers to the answer by `Admission.headers`.
"""

import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

from clusterai.gateway.adapters.keys import KeyRing
from clusterai.gateway.core.faults import Fault
from clusterai.gateway.core.limits import Usage
from clusterai.protocol.ids import Digest

Header = tuple[bytes, bytes]


class Admission(msgspec.Struct):
    """One request let in.

    Attributes:
        account: whom its orders are charged to.
        name: what the door calls the one who came, for logs: an id, never a secret.
        usage: its buckets; None where the payment itself is the limit.
        headers: what the door adds to the answer.
    """

    account: Digest
    name: str
    scopes: tuple[str, ...]
    usage: Usage | None = None
    headers: list[Header] = msgspec.field(default_factory=list)


class Door(Protocol):
    async def admit(
        self, method: str, path: str, headers: dict[bytes, bytes], body: bytes
    ) -> Admission | None:
        """The admission; None when this door isn't meant.

        Raises:
            Fault: it is meant, and refuses.
        """
        ...


class KeyDoor:
    """`Authorization: Bearer sk-clusterai-…`."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    async def admit(
        self, method: str, path: str, headers: dict[bytes, bytes], body: bytes
    ) -> Admission | None:
        return self.admit_key(headers)

    def admit_key(self, headers: dict[bytes, bytes]) -> Admission | None:
        given = headers.get(b"authorization")
        if given is None:
            return None
        kind, _, secret = given.decode("latin-1").partition(" ")
        if kind.lower() != "bearer":
            raise _unauthorised("the Authorization header isn't `Bearer <key>`")
        key = self._keys.find(secret.strip())
        if key is None:
            # LiteLLM takes a 401 for a bad request unless it reads OpenAI's own words.
            raise _unauthorised("Incorrect API key provided: it is unknown or revoked")
        return Admission(key.account, key.id, key.scopes, self._keys.usage(key))


class Doors:
    """All doors, asked in order; nobody's is 401."""

    def __init__(self, doors: Sequence[Door]) -> None:
        self.doors = list(doors)

    async def admit(
        self, method: str, path: str, headers: dict[bytes, bytes], body: bytes, scope: str
    ) -> Admission:
        """
        Raises:
            Fault: 401 nobody knows it, 403 its key hasn't `scope`, or what a door says.
        """
        for door in self.doors:
            admission = await door.admit(method, path, headers, body)
            if admission is not None:
                if scope not in admission.scopes:
                    raise Fault(
                        403,
                        "permission_error",
                        "missing_scope",
                        f"this key lacks the scope {scope!r}: use another key, or make one with it",
                    )
                return admission
        raise _unauthorised("no API key was given: send `Authorization: Bearer <key>`")


def within_limits(usage: Usage | None) -> None:
    """Take one of the key's requests; who is let in counts itself as running.

    Raises:
        Fault: 429, the key runs as many requests as it may, or has asked too often.
    """
    if usage is None:
        return
    if usage.limits.at_once and usage.running >= usage.limits.at_once:
        raise Fault(
            429,
            "rate_limit_error",
            "too_many_at_once",
            f"this key runs {usage.running} requests, as many as it may: wait for one to end",
            None,
            1.0,
        )
    wait_s = usage.requests.take(1, time.monotonic())
    if wait_s:
        raise slower("requests", usage.requests.limit, wait_s)


def slower(what: str, limit: int, wait_s: float) -> Fault:
    return Fault(
        429,
        "rate_limit_error",
        "rate_limit_exceeded",
        f"this key may use {limit} {what} a minute: try again in {wait_s:.1f} s",
        None,
        wait_s,
    )


def _unauthorised(why: str) -> Fault:
    return Fault(
        401,
        "invalid_request_error",
        "invalid_api_key",
        f"{why}; `clusterai account` shows the key of a local network",
    )
