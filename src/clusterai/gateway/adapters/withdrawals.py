"""Withdrawals over HTTP: a signed wish comes in, and is owed before it is answered.

    POST {account, to, most_wei, expires_s, nonce, signature} ─> 202 paying ─> (the chain) ─> GET …/{id}: paid

The signature is the authority; for an account that isn't the wallet's own, a key of the account is wanted beside it. The
same request again is answered with the same withdrawal.
"""

import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from clusterai.gateway.adapters.door import Doors
from clusterai.gateway.core import views
from clusterai.gateway.core.faults import Fault
from clusterai.gateway.core.limits import Bucket
from clusterai.gateway.core.meter import Meter
from clusterai.gateway.core.moneystate import Payout, wallet_account
from clusterai.gateway.core.payouts import Refusal, Withdraw
from clusterai.protocol import ids
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.withdrawal import Withdrawal

A_MINUTE = 600
"""Requests of everybody together: each costs the check of a signature. An account's own limit is the Meter's."""
STATUS = {"too_many": 429, "expired": 400, "bad_signature": 401, "too_little": 409, "wrong_gateway": 400}
Hex = Annotated[str, Meta(max_length=132)]


class WithdrawalBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a withdrawal is asked with; `signature` is of these fields and this gateway."""

    to: Hex
    most_wei: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    expires_s: Annotated[int, Meta(ge=0, le=2**40 - 1)]
    nonce: Hex
    signature: Hex
    account: Hex


class Withdrawals:
    """What pages serve of withdrawals.

    Args:
        handle: gives an event to the Meter.
    """

    def __init__(
        self,
        meter: Meter,
        doors: Doors,
        handle: Callable[[Any], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._meter = meter
        self._doors = doors
        self._handle = handle
        self._clock = clock
        self._bucket = Bucket(A_MINUTE)

    async def make(self, path: str, headers: dict[bytes, bytes], body: bytes) -> dict[str, Any]:
        """
        Raises:
            Fault: malformed, refused, or not with this key.
        """
        wait_s = self._bucket.take(1, self._clock())
        if wait_s:
            raise Fault(429, "rate_limit_error", "too_many", "many withdrawals now: try again", None, wait_s)
        asked = self._parsed(body)
        found = self._judged(asked)
        if found.account != wallet_account(Address(found.source)):
            admission = await self._doors.admit("POST", path, headers, b"", "inference")
            if admission.account != found.account:
                raise Fault(
                    403, "permission_error", "other_account", "use a key of the account that is to pay back"
                )
            # Others may have come in the meantime.
            found = self._judged(asked)
        self._handle(asked)
        return views.payout(self._meter, found)

    def show(self, name: Digest) -> dict[str, Any] | None:
        """A withdrawal that is remembered: an hour, and as long as it is unpaid."""
        found = self._meter.book.payouts.get(name)
        return None if found is None else views.payout(self._meter, found)

    def _judged(self, asked: Withdraw) -> Payout:
        chain_s = self._meter.chain_time_s(self._clock())
        found = self._meter.payouts.judge(asked.wish, asked.signature, chain_s)
        if isinstance(found, Refusal):
            kind = "rate_limit_error" if found.code == "too_many" else "invalid_request_error"
            raise Fault(STATUS[found.code], kind, found.code, found.detail, None, found.retry_after_s or None)
        return found

    def _parsed(self, body: bytes) -> Withdraw:
        try:
            told = msgspec.json.decode(body, type=WithdrawalBody)
            wish = Withdrawal(
                self._meter.me.owner,
                ids.digest(told.account),
                ids.address(told.to),
                told.most_wei,
                told.expires_s,
                ids.digest(told.nonce),
            )
            return Withdraw(wish, bytes.fromhex(told.signature.removeprefix("0x")))
        except (msgspec.MsgspecError, ValueError) as error:
            raise Fault(400, "invalid_request_error", "invalid_withdrawal", str(error)) from None
