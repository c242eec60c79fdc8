"""The door for wallets: no account, no key, a payment with the request (x402 v2).

    client                      gateway                                     chain
      |-- POST, no key ---------->|
      |<- 402 PAYMENT-REQUIRED ---|  quote: the most that this request can cost
      |-- PAYMENT-SIGNATURE ----->|-- verify, settle ------------------------>|  `exact`: transfer to the till
      |                           |                                           |  `batch-settlement`: a voucher, no transaction
      |<- answer, PAYMENT-RESPONSE|  the answer is charged by measured usage

A payment becomes credit of the wallet's own account, and the request is then charged like any other: by receipts. What
it cost less than the quote stays credit, and pays for the wallet's next requests before a new payment is taken (its signature
is then left unused). So a wallet, too, pays only for what was measured.

Nothing is believed but the chain and the vouchers: `exact` money is credited when the transfer to the till stands in a
block, voucher money by the channel's cumulative total, so that a crash between the payment and the credit loses neither.
x402's own library verifies and settles; it blocks, so it works in a thread.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from clusterai.gateway.adapters.door import Admission, Header
from clusterai.gateway.core.faults import Fault
from clusterai.gateway.core.moneystate import Pledge, wallet_account
from clusterai.ledger.adapters.network import Network
from clusterai.protocol.ids import Address, BadId, Digest, address, checksummed, digest
from clusterai.protocol.money import show
from clusterai.protocol.signing import Key
from clusterai.runtime.adapters.recursion import same_recursion_limit

if TYPE_CHECKING:
    from x402 import x402FacilitatorSync
    from x402.schemas import PaymentPayload, PaymentRequirements, SettleResponse

log = structlog.get_logger("wallet")

CREDIT_WAIT_S = 15.0
"""How long a settled transfer may take to be seen in a block before the request is answered 503; the credit stays."""
COLLECT_EVERY_S = 30.0
TIMEOUT_S = 300
"""How long a client's signature holds."""
MOST_HEADER = 16 * 1024
MOST_SETTLING = 64

Quote = Callable[[str, bytes], Awaitable[int]]
"""(path, body) to the most that this request can cost, in wei; raises the `Fault` that the request deserves."""


class PaymentRequired(Fault):
    """402 with the terms in PAYMENT-REQUIRED, as x402 clients read them; the message is for people."""

    def __init__(self, code: str, message: str, terms: str) -> None:
        super().__init__(402, "insufficient_quota", code, message)
        self._terms = terms

    def headers(self) -> list[Header]:
        exposed: Header = (b"access-control-expose-headers", b"PAYMENT-REQUIRED, PAYMENT-RESPONSE")
        return [*super().headers(), (b"payment-required", self._terms.encode()), exposed]


class WalletDoor:
    """Admits who pays with the request.

    Args:
        paths: those that can be paid for.
        key: the till's key: exact payments go to its address, it sends the settling transactions and signs claims.
        credit_wei: what an account may spend now.
        pledge: tell the Meter how far a channel's vouchers go.
    """

    def __init__(
        self,
        network: Network,
        owner: Address,
        key: Key,
        folder: Path,
        paths: Container[str],
        quote: Quote,
        credit_wei: Callable[[Digest], int],
        pledge: Callable[[Pledge], None],
    ) -> None:
        self._network = network
        self._owner = owner
        self._key = key
        self._folder = folder
        self._paths = paths
        self._quote = quote
        self._credit_wei = credit_wei
        self._pledge = pledge
        self._settling = 0
        self._block = asyncio.Event()
        self._shop: _Shop | None = None

    async def run(self) -> None:
        """Load x402 (its imports take a second or two), bring in pledges that a crash left, and collect, until cancelled."""
        self._shop = shop = await asyncio.to_thread(
            _Shop, self._network, self._owner, self._key, self._folder
        )
        self._pledge_all(shop)
        while True:
            await asyncio.sleep(COLLECT_EVERY_S)
            try:
                await asyncio.to_thread(shop.collect)
            except (
                Exception
            ) as error:  # x402 raises bare RuntimeError for chain trouble; what is owed stays owed
                log.warning("collecting failed, will be tried again", error=str(error)[:300])

    def block(self) -> None:
        """A block was read: payments may have become credit."""
        self._block.set()

    async def admit(
        self, method: str, path: str, headers: dict[bytes, bytes], body: bytes
    ) -> Admission | None:
        if method != "POST" or path not in self._paths or b"authorization" in headers:
            return None
        shop = self._shop
        if shop is None:
            if b"payment-signature" not in headers:
                return None
            raise Fault(
                503, "service_unavailable", "starting", "payments by wallet start up: try again", None, 2.0
            )
        price_wei = await self._quote(path, body)
        terms = shop.terms(price_wei)
        given = headers.get(b"payment-signature")
        if given is None:
            raise await shop.required(terms, path, None, None, price_wei)
        if self._settling >= MOST_SETTLING:
            raise Fault(
                429, "rate_limit_error", "too_many_payments", "many payments settle now: try again", None, 1.0
            )
        self._settling += 1
        try:
            return await self._paid(shop, terms, path, given, price_wei)
        finally:
            self._settling -= 1

    async def _paid(
        self, shop: "_Shop", terms: "list[PaymentRequirements]", path: str, given: bytes, price_wei: int
    ) -> Admission:
        from x402.schemas.errors import PaymentAbortedError

        payload = _decoded(given)
        wanted = shop.match(terms, payload)
        if wanted is None:
            raise await shop.required(terms, path, "payment doesn't match these terms", payload, price_wei)
        try:
            verified = await shop.server.verify_payment(payload, wanted)
        except PaymentAbortedError as aborted:
            raise await shop.required(terms, path, aborted.reason, payload, price_wei) from None
        except (ValueError, TypeError, KeyError, AttributeError):
            # x402 reads the scheme's own fields unchecked, and they hold what a stranger wrote.
            raise await shop.required(terms, path, "its fields can't be read", payload, price_wei) from None
        if not verified.is_valid or not verified.payer:
            reason = verified.invalid_reason or "invalid payment"
            raise await shop.required(terms, path, reason, payload, price_wei)
        try:
            payer = address(verified.payer)
        except BadId:
            raise await shop.required(terms, path, "payer is no address", payload, price_wei) from None
        account = wallet_account(payer)
        admission = Admission(account, checksummed(payer), ("inference",))
        if self._credit_wei(account) >= price_wei:
            await shop.leave_unused(payload, wanted)
            return admission
        try:
            settled = await shop.server.settle_payment(payload, wanted)
        except PaymentAbortedError as aborted:
            raise await shop.required(terms, path, aborted.reason, payload, price_wei) from None
        if not settled.success:
            reason = settled.error_reason or "settlement failed"
            raise await shop.required(terms, path, reason, payload, price_wei)
        if wanted.scheme == "batch-settlement":
            self._pledge_all(shop)
        await self._credited(account, price_wei)
        admission.headers += shop.receipt(settled)
        return admission

    async def _credited(self, account: Digest, price_wei: int) -> None:
        """Wait until the payment counts."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CREDIT_WAIT_S):
                while self._credit_wei(account) < price_wei:
                    self._block.clear()
                    await self._block.wait()
                return
        raise Fault(
            503,
            "service_unavailable",
            "payment_unconfirmed",
            "your payment was sent and isn't confirmed yet; it will be your credit: send the request again",
            None,
            5.0,
        )

    def _pledge_all(self, shop: "_Shop") -> None:
        for pledge in shop.pledges():
            self._pledge(pledge)


class _Shop:
    """x402's server, facilitator and channel manager, wired to our chain and token."""

    def __init__(self, network: Network, owner: Address, key: Key, folder: Path) -> None:
        with same_recursion_limit():
            from eth_account import Account
            from x402 import x402FacilitatorSync, x402ResourceServer
            from x402.mechanisms.evm import FacilitatorWeb3Signer
            from x402.mechanisms.evm.batch_settlement.authorizer_signer import LocalAuthorizerSigner
            from x402.mechanisms.evm.batch_settlement.facilitator import BatchSettlementEvmFacilitator
            from x402.mechanisms.evm.batch_settlement.server import (
                BatchSettlementChannelManagerSync,
                BatchSettlementEvmScheme,
                BatchSettlementEvmSchemeServerConfig,
                ChannelManagerConfigSync,
            )
            from x402.mechanisms.evm.batch_settlement.server.file_storage import FileChannelStorage
            from x402.mechanisms.evm.exact import ExactEvmServerScheme
            from x402.mechanisms.evm.exact.facilitator import ExactEvmScheme

        self._caip2 = f"eip155:{network.chain_id}"
        self._token = checksummed(network.contracts.token)
        self._owner = checksummed(owner)
        self._till = checksummed(key.address)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        signer = FacilitatorWeb3Signer(
            "0x" + key.secret().hex(), network.rpc_urls[0], confirmation_timeout_seconds=CREDIT_WAIT_S
        )
        authorizer = LocalAuthorizerSigner(Account.from_key(key.secret()))
        self._signer = signer
        self._scheme: BatchSettlementEvmScheme = BatchSettlementEvmScheme(
            self._owner,
            BatchSettlementEvmSchemeServerConfig(
                storage=FileChannelStorage(str(folder)), receiver_authorizer_signer=authorizer
            ),
        )
        facilitator = x402FacilitatorSync()
        facilitator.register([self._caip2], BatchSettlementEvmFacilitator(signer, authorizer))
        facilitator.register([self._caip2], ExactEvmScheme(signer))
        self.server: x402ResourceServer = x402ResourceServer(_Threaded(facilitator))
        schemes: list[Any] = [self._scheme, ExactEvmServerScheme()]  # looser than the library's own protocol
        for scheme in schemes:
            self.server.register(self._caip2, scheme)
        self.server.initialize()
        self._manager = BatchSettlementChannelManagerSync(
            ChannelManagerConfigSync(
                scheme=self._scheme,
                facilitator=facilitator,
                receiver=self._owner,
                token=self._token,
                network=self._caip2,
            )
        )

    def terms(self, price_wei: int) -> "list[PaymentRequirements]":
        """Both ways to pay: one transfer now, or a voucher of a channel."""
        from x402.schemas import AssetAmount, ResourceConfig

        price = AssetAmount(
            amount=str(price_wei),
            asset=self._token,
            extra={"name": "ClusterAI", "version": "1", "assetTransferMethod": "eip3009"},
        )
        return [
            one
            for scheme, pay_to in (("exact", self._till), ("batch-settlement", self._owner))
            for one in self.server.build_payment_requirements(
                ResourceConfig(
                    scheme=scheme,
                    pay_to=pay_to,
                    price=price,
                    network=self._caip2,
                    max_timeout_seconds=TIMEOUT_S,
                )
            )
        ]

    def match(
        self, terms: "list[PaymentRequirements]", payload: "PaymentPayload"
    ) -> "PaymentRequirements | None":
        return self.server.find_matching_requirements(terms, payload)

    async def required(
        self,
        terms: "list[PaymentRequirements]",
        path: str,
        error: str | None,
        payload: "PaymentPayload | None",
        price_wei: int,
    ) -> PaymentRequired:
        from x402.http.utils import encode_payment_required_header
        from x402.schemas import ResourceInfo

        told = await self.server.create_payment_required_response(
            terms,
            ResourceInfo(url=path, description="an answer", mime_type="application/json"),
            error,
            payment_payload=payload,
        )
        why = f"the payment was refused: {error}" if error else "no API key and no payment was given"
        return PaymentRequired(
            "payment_refused" if error else "payment_required",
            f"{why}; pay at most {show(price_wei)} with an x402 client (the terms are in the PAYMENT-REQUIRED header), "
            "or send `Authorization: Bearer <key>`",
            encode_payment_required_header(told),
        )

    async def leave_unused(self, payload: "PaymentPayload", terms: "PaymentRequirements") -> None:
        """The wallet's credit pays: free its channel for the next voucher, and let the signature lapse."""
        from x402.schemas import VerifiedPaymentCancelOptions

        await self.server.create_payment_cancellation_dispatcher(payload, terms).cancel(
            VerifiedPaymentCancelOptions(reason="handler_failed", response_status=200)
        )

    def receipt(self, settled: "SettleResponse") -> list[Header]:
        from x402.http.utils import encode_payment_response_header

        return [(b"payment-response", encode_payment_response_header(settled).encode())]

    def pledges(self) -> list[Pledge]:
        """How far each channel's vouchers have been used up, from x402's own durable storage."""
        return [
            Pledge(
                wallet_account(address(channel.channel_config.payer)),
                digest(channel.channel_id),
                int(channel.charged_cumulative_amount),
            )
            for channel in self._scheme.get_storage().list()
        ]

    def collect(self) -> None:
        """Claim what vouchers promise, have matured claims paid out, and empty the till into the owner's account."""
        if self._manager.claim():
            log.info("claimed wallets' vouchers")
        if self._scheme.get_storage().list():
            self._manager.settle()
        taken = self._signer.get_balance(self._till, self._token)
        if taken:
            self._signer.write_contract(self._token, _TRANSFER_ABI, "transfer", self._owner, taken)


_TRANSFER_ABI: list[dict[str, Any]] = [
    {
        "type": "function",
        "name": "transfer",
        "inputs": [{"name": "to", "type": "address"}, {"name": "value", "type": "uint256"}],
        "outputs": [{"name": "", "type": "bool"}],
        "stateMutability": "nonpayable",
    }
]


class _Threaded:
    """The blocking facilitator as x402's async server wants one."""

    def __init__(self, facilitator: "x402FacilitatorSync") -> None:
        self._facilitator = facilitator

    async def verify(self, payload: Any, requirements: Any) -> Any:
        return await asyncio.to_thread(self._facilitator.verify, payload, requirements)

    async def settle(self, payload: Any, requirements: Any) -> Any:
        return await asyncio.to_thread(self._facilitator.settle, payload, requirements)

    def get_supported(self) -> Any:
        return self._facilitator.get_supported()


def _decoded(given: bytes) -> "PaymentPayload":
    """
    Raises:
        Fault: not a payment of x402's version 2.
    """
    from x402.http.utils import decode_payment_signature_header
    from x402.schemas import PaymentPayload

    if len(given) <= MOST_HEADER:
        # The decoder raises whatever base64, JSON and pydantic raise; all of it is the client's fault.
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            payload = decode_payment_signature_header(given.decode("latin-1"))
            # It takes every version but the first for the second.
            if isinstance(payload, PaymentPayload) and payload.x402_version == 2:
                return payload
    raise Fault(
        400,
        "invalid_request_error",
        "malformed_payment",
        "PAYMENT-SIGNATURE holds no payment of x402 version 2",
    )
