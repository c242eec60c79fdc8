"""Vaults behind a gateway, asynchronously: what data there is, sealed calls, orders. The server side answers exactly these shapes (`vaultshapes.py`).

POST /v1/clusterai/calls/{subject}    ?provider=&sender=  bytes → bytes
POST /v1/clusterai/orders/{subject}   OrderRequest → Ordered; Idempotency-Key
POST /v1/clusterai/data               DataListing in canonical bytes → DataPosted
GET  /v1/clusterai/data               ?text=&owner=&limit=&page= → DataList
GET  /v1/clusterai/data/{dataset}     Dataset

    async with Vaults() as vaults:                     # a command of the CLI: asyncio.run(main())
        data = await vaults.dataset(dataset)           # checked: raises Untrue
        told = await vaults.ask(identity, data, "vault", encode(AskData()))
        done = await vaults.order(subject, "query", spec.canonical(), max_price_wei=10**6)

A gateway is trusted with nothing here but to carry: calls are sealed to the key in the vault's card, and the card is the one that the
data set's owner signed. Whether the signing key acts for that owner the chain knows (Registry `ownerOf`): `vouch` asks it, and every
command of the CLI has one that does (`cli/vouching.py`).
"""

import asyncio
import base64
import secrets
import socket
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

import httpx
import msgspec

from clusterai.protocol import canonical, ids
from clusterai.protocol.calls import DataListing
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest, hex0x
from clusterai.protocol.signing import BadSignature, recover
from clusterai.protocol.statements import network_domain
from clusterai.protocol.vaults import Listing, dataset_id, subject
from clusterai.sdk import shapes
from clusterai.sdk.client import ApiError, Unreachable, access, decoded, failed, problem
from clusterai.sdk.identity import Identity, NotFromVault
from clusterai.sdk.vaultshapes import DataAway, DataList, DataPosted, Dataset, Ordered, OrderRequest, Served

PATH = "/v1/clusterai"
CALL_S = 330.0
"""A little longer than a gateway waits, so that it is the gateway that says why."""
ORDER_S = 3700.0
TIMEOUT_S = 10.0
PATIENCE_S = 30.0
ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, option, value)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
    if (option := getattr(socket, name, None)) is not None
]
"""An answer may take an hour, of which nothing is heard meanwhile: that a gateway's machine is gone, its system has to find out, in a minute."""
AGAIN = (429, 503)
"""What passes: a limit, a vault that restarts, a gateway that does."""

T = TypeVar("T")

Vouch = Callable[["Listed"], Awaitable[None]]
"""Asks who knows, such as the chain, whether a listing is its owner's word, and raises if it isn't."""


class Untrue(ValueError):
    """What the gateway shows isn't what its owner signed: {why}. Use another gateway, and tell the data's owner."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"what the gateway shows isn't what its owner signed: {why}. Use another gateway, and tell the data's owner"
        )


class Listed(msgspec.Struct, frozen=True):
    """A data set whose listing was checked.

    Attributes:
        card: as its owner wrote it, decoded.
        signer: the hot key that signed; the chain knows whether it acts for `listing.owner`.
        network: under whose domain everything about it is signed.
    """

    listing: Listing
    card: dict[str, Any]
    signer: Address
    network: Domain
    holders: tuple[str, ...]
    serves: tuple[Served, ...]

    @property
    def dataset(self) -> Digest:
        return Digest(self.listing.dataset)

    @property
    def name(self) -> str:
        return str(self.card["name"])

    @property
    def is_vault(self) -> bool:
        """Whether calls would be sealed to it; else it is files, which their own hashes prove."""
        ours = self.card.get("clusterai")
        return isinstance(ours, dict) and "seal_to" in ours

    @property
    def seal_to(self) -> bytes:
        """The vault's X25519 key.

        Raises:
            Untrue: the card names none: this is no vault.
        """
        try:
            return bytes(ids.digest(self.card["clusterai"]["seal_to"]))
        except (KeyError, TypeError, AttributeError, ids.BadId):
            raise Untrue("its card names no key that calls could be sealed to") from None


class Done(msgspec.Struct, frozen=True):
    """A paid order. `receipt` is None where the provider never sent one: then it was free."""

    answer: bytes
    receipt: shapes.Receipt | None
    charged_wei: int
    provider: str


class Vaults:
    """One gateway.

    Args:
        base_url, api_key: as `sdk.Client`.
        patience_s: for how long what may pass is tried again: a vault that restarts, a limit.
        vouch: asked of each data set that `dataset` returns; without one it is the gateway's word whose key signed it.
        clock: that patience goes by.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        patience_s: float = PATIENCE_S,
        vouch: Vouch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base_url, headers = access(base_url, api_key)
        self._patience_s = patience_s
        self._vouch = vouch
        self._clock = clock
        # With a transport of our own httpx asks no proxies, so that where the environment names some it makes its own.
        transport = None if urllib.request.getproxies() else httpx.AsyncHTTPTransport(socket_options=ALIVE)
        self._http = httpx.AsyncClient(
            base_url=self.base_url, headers=headers, timeout=TIMEOUT_S, transport=transport
        )
        self._network: Domain | None = None

    async def __aenter__(self) -> "Vaults":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    # --- what data there is ---

    async def network(self) -> Domain:
        """The domain that requesters sign under, as the gateway tells it; once asked, kept."""
        if self._network is None:
            told = await self._told("GET", f"{PATH}/network", shapes.Invitation)
            try:
                manifest = msgspec.json.decode(told.manifest, type=_Manifest)
                registry = ids.address(manifest.contracts["registry"])
            except (msgspec.MsgspecError, KeyError, ids.BadId) as error:
                raise Unreachable(self.base_url, f"its manifest can't be used: {error}") from None
            self._network = network_domain(manifest.chain_id, registry)
        return self._network

    async def find(self, text: str = "", owner: Address | None = None) -> AsyncIterator[Listed]:
        """Data sets whose cards say all these words, as their signatures have it: nobody is asked about them yet (`believed`).

        Raises:
            Untrue, ApiError, Unreachable.
        """
        asked: dict[str, str] = {"text": text} if text else {}
        if owner is not None:
            asked["owner"] = hex0x(owner)
        while True:
            page = await self._told("GET", f"{PATH}/data", DataList, params=asked)
            for it in page.data:
                yield read(it, await self.network())
            if not page.next:
                return
            asked["page"] = page.next

    async def away(self, name: str) -> tuple[DataAway, ...]:
        """What of that name this gateway saw linked, and doesn't any more: its word alone.

        Raises:
            ApiError, Unreachable.
        """
        told = await self._told("GET", f"{PATH}/data", DataList, params={"text": name, "limit": "1"})
        return tuple(it for it in told.away if it.name == name)

    async def dataset(self, dataset: Digest) -> Listed:
        """
        Raises:
            Untrue: it isn't what its owner signed.
            ApiError: 404, no linked provider has it; `vault_away` where one had it a while ago.
        """
        told = await self._told("GET", f"{PATH}/data/{hex0x(dataset)}", Dataset)
        found = read(told, await self.network())
        if found.dataset != dataset:
            raise Untrue("it is another data set than was asked for")
        await self.believed(found)
        return found

    async def believed(self, data: Listed) -> None:
        """Ask whom this client was told to ask whether a listing is its owner's word; what that raises, this raises."""
        if self._vouch is not None:
            await self._vouch(data)

    async def post(self, said: DataListing) -> DataPosted:
        """List a data set that anyone may hold, for a day.

        Raises:
            ApiError: 400, the detail says what is wrong with it; 401 without a key. Unreachable.
        """
        headers = {"Content-Type": "application/octet-stream"}
        return await self._told(
            "POST", f"{PATH}/data", DataPosted, content=canonical.encode(said), headers=headers
        )

    # --- calls ---

    async def ask(
        self,
        identity: Identity,
        data: Listed,
        kind: str,
        body: bytes,
        provider: Address | None = None,
        timeout_s: float = CALL_S,
    ) -> bytes:
        """A call that this vault alone can read, and its answer, which only we can.

        What passes is tried again, sealed anew: a vault counts each seal once. So ask for what may be asked twice.

        Args:
            kind: "vault" for access, else the kind of work whose service answers.

        Raises:
            NotFromVault: the answer was changed on its way.
            ApiError: refused; `code` is of `protocol.calls.CallRefused`, or the gateway's.
            Unreachable, Untrue.
        """
        about, patience = subject(data.dataset, kind), _Patience(self._clock, self._patience_s, timeout_s)
        while True:
            patience.begin()
            question = identity.sealed(data.dataset, data.seal_to, data.network, body, time.time())
            try:
                reply = await self.call(about, question.body, identity.address, provider, timeout_s)
            except (ApiError, Unreachable) as error:
                # It was listed a moment ago: after a restart, of the gateway or of the vault, links take seconds.
                away = isinstance(error, ApiError) and error.status == 404 and provider is None
                await patience.pause(error, away)
            else:
                return identity.opened(data.seal_to, reply, question.nonce)

    async def call(
        self,
        about: Digest,
        body: bytes,
        sender: Address = ZERO_ADDRESS,
        provider: Address | None = None,
        timeout_s: float = CALL_S,
    ) -> bytes:
        """A call as it is, once: the gateway reads along unless the body is sealed.

        Raises:
            ApiError, Unreachable.
        """
        asked = {"sender": hex0x(sender)} | ({} if provider is None else {"provider": hex0x(provider)})
        headers = {"Content-Type": "application/octet-stream"}
        return (
            await self._ask(
                "POST",
                f"{PATH}/calls/{hex0x(about)}",
                content=body,
                params=asked,
                headers=headers,
                timeout=httpx.Timeout(timeout_s, connect=TIMEOUT_S),
            )
        ).content

    # --- orders ---

    async def order(
        self,
        about: Digest,
        kind: str,
        request: bytes,
        max_price_wei: int | None = None,
        provider: Address | None = None,
        key: str = "",
    ) -> Done:
        """One order of a kind, paid from the account. What passes is tried again, and paid once.

        Args:
            request: the kind's canonical bytes.
            key: the order's Idempotency-Key; drawn where none is given. Whoever keeps it can ask for the answer again after a crash.

        Raises:
            ApiError: refused; nothing was charged unless the detail says so. `too_dear`: above `max_price_wei`.
            Unreachable.
        """
        asked = OrderRequest(
            kind=kind,
            request=base64.b64encode(request).decode(),
            max_price_wei=max_price_wei,
            provider=None if provider is None else hex0x(provider),
        )
        headers = {"Content-Type": "application/json", "Idempotency-Key": key or secrets.token_hex(16)}
        path, body = f"{PATH}/orders/{hex0x(about)}", msgspec.json.encode(asked)
        patience, wait = (
            _Patience(self._clock, self._patience_s, ORDER_S),
            httpx.Timeout(ORDER_S, connect=TIMEOUT_S),
        )
        while True:
            patience.begin()
            try:
                response = await self._ask("POST", path, content=body, headers=headers, timeout=wait)
            except (ApiError, Unreachable) as error:
                await patience.pause(error)
            else:
                told = decoded(self.base_url, response, Ordered)
                return Done(base64.b64decode(told.answer), told.receipt, told.charged_wei, told.provider)

    # --- HTTP ---

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = await self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise failed(self.base_url, error) from None
        if not response.is_success:
            raise problem(response)
        return response

    async def _told(self, method: str, path: str, kind: type[T], **options: Any) -> T:
        patience = _Patience(self._clock, self._patience_s, self._patience_s)
        while True:
            patience.begin()
            try:
                return decoded(self.base_url, await self._ask(method, path, **options), kind)
            except (ApiError, Unreachable) as error:
                await patience.pause(error)


_RUNS = ("idempotency_key_in_use",)
"""The order runs already: its answer is worth waiting for."""


class _Patience:
    """For how long one question is asked again. It counts from when the gateway was last there: one that is killed an hour into an
    order has as long to come back as one that is killed at once.

    Args:
        most_s: for all of it.
    """

    def __init__(self, clock: Callable[[], float], patience_s: float, most_s: float) -> None:
        self._clock, self._patience_s = clock, patience_s
        self._begun_s = clock()
        self._ends_s, self._most_s = self._begun_s + patience_s, self._begun_s + max(most_s, patience_s)

    def begin(self) -> None:
        self._begun_s = self._clock()

    async def pause(self, error: ApiError | Unreachable, passes: bool = False) -> None:
        """Wait as long as we are told, or raise what won't pass."""
        lost = isinstance(error, Unreachable)
        passes = passes or lost or error.status in AGAIN or error.code in _RUNS
        wait_s = 1.0 if lost else max(0.5, error.retry_after_s)
        now_s = self._clock()
        if lost and now_s - self._begun_s > 2 * TIMEOUT_S:
            # Connecting ends sooner, so it was connected.
            self._ends_s = min(now_s + self._patience_s, self._most_s)
        if not passes or now_s + wait_s > self._ends_s:
            raise error
        await asyncio.sleep(wait_s)


class _Manifest(msgspec.Struct):
    chain_id: int
    contracts: dict[str, str]


def read(told: Dataset, network: Domain) -> Listed:
    """A data set as the gateway tells of it, checked against what its owner signed.

    Raises:
        Untrue.
    """
    try:
        raw = base64.b64decode(told.listing, validate=True)
        listing = canonical.decode(raw, Listing)
        signer = recover(listing.signing_digest(network), bytes.fromhex(told.signature.removeprefix("0x")))
    except (ValueError, Malformed, BadSignature) as error:
        raise Untrue(str(error)) from None
    if canonical.content_digest(bytes(told.card)) != listing.card:
        raise Untrue("the card is another than was signed")
    try:
        card = msgspec.json.decode(told.card, type=dict[str, Any])
        if dataset_id(Address(listing.owner), str(card.get("name"))) != listing.dataset:
            raise Untrue("the data set isn't that of its owner and the card's name")
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise error if isinstance(error, Untrue) else Untrue(str(error)) from None
    return Listed(listing, card, signer, network, told.holders, told.serves)


__all__ = ["ApiError", "Done", "Listed", "NotFromVault", "Unreachable", "Untrue", "Vaults", "read"]
