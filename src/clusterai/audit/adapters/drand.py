"""Fetches drand's pulses from its public relays. Any relay serves, since none is believed."""

from collections.abc import Sequence
from typing import Annotated

import httpx
import msgspec
from msgspec import Meta

from clusterai.audit.core.drand import SIGNATURE_BYTES, FalsePulse, Pulse, randomness
from clusterai.ledger.core.rules import DrandRules
from clusterai.protocol.ids import Digest

RELAYS = (
    "https://api.drand.sh",
    "https://api2.drand.sh",
    "https://api3.drand.sh",
    "https://drand.cloudflare.com",
)
MAX_BODY_BYTES = 4_096

_Hex = Annotated[str, Meta(pattern=rf"\A[0-9a-f]{{{2 * SIGNATURE_BYTES}}}\Z")]


class _Body(msgspec.Struct, frozen=True):
    """What a relay answers; `randomness` is left unread, for it is derived from the signature."""

    round: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    signature: _Hex


class NoPulse(ConnectionError):
    """No relay gave a pulse that verifies; the round may lie in the future, or the network be unreachable."""


async def fetch(
    client: httpx.AsyncClient, drand: DrandRules, round_number: int, relays: Sequence[str] = RELAYS
) -> tuple[Pulse, Digest]:
    """A round's pulse and its 32 bytes of randomness, from the first relay whose answer verifies.

    Raises:
        NoPulse: with what each relay said.
    """
    said: list[str] = []
    for relay in relays:
        try:
            pulse = await _ask(client, f"{relay}/{drand.chain}/public/{round_number}")
            if pulse.round != round_number:
                raise FalsePulse(f"round {pulse.round} instead of {round_number}")
            return pulse, randomness(drand, pulse)
        except (httpx.HTTPError, FalsePulse) as refusal:
            said.append(f"{relay}: {refusal}")
    raise NoPulse("; ".join(said))


async def _ask(client: httpx.AsyncClient, url: str) -> Pulse:
    body = bytearray()
    async with client.stream("GET", url) as response:
        response.raise_for_status()
        async for chunk in response.aiter_bytes(MAX_BODY_BYTES):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise FalsePulse(f"more than {MAX_BODY_BYTES} bytes")
    return read_pulse(bytes(body))


def read_pulse(body: bytes) -> Pulse:
    """What a relay answered, not yet verified.

    Raises:
        FalsePulse: it is no pulse.
    """
    try:
        answer = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FalsePulse(str(error)) from None
    return Pulse(answer.round, bytes.fromhex(answer.signature))
