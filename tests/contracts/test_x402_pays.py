# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportArgumentType=false
# (x402's own classes don't fit its own protocols)
"""An unmodified x402 client, server, facilitator and channel manager on our contracts, by both schemes."""

import time
from typing import Any

import pytest
from eth_account import Account
from x402 import x402ClientSync, x402FacilitatorSync, x402ResourceServerSync
from x402.mechanisms.evm.batch_settlement.authorizer_signer import LocalAuthorizerSigner
from x402.mechanisms.evm.batch_settlement.client import BatchSettlementEvmScheme as BatchClient
from x402.mechanisms.evm.batch_settlement.facilitator import BatchSettlementEvmFacilitator
from x402.mechanisms.evm.batch_settlement.server import (
    BatchSettlementChannelManagerSync,
    BatchSettlementEvmSchemeServerConfig,
    ChannelManagerConfigSync,
)
from x402.mechanisms.evm.batch_settlement.server import BatchSettlementEvmScheme as BatchServer
from x402.mechanisms.evm.exact import ExactEvmScheme as ExactClient
from x402.mechanisms.evm.exact import ExactEvmServerScheme as ExactServer
from x402.mechanisms.evm.exact.facilitator import ExactEvmScheme as ExactFacilitator
from x402.schemas import AssetAmount, ResourceConfig
from x402.schemas.hooks import PaymentResponseContext

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Claimed, Deposited, Event, Refunded, Settled
from clusterai.protocol.ids import ZERO_DIGEST, Address, checksummed
from tests.contracts.bytecode import CHAIN_ID, BytecodeChain
from tests.contracts.cast import AT, DEPLOYER, GATEWAY, HOTS, OWNERS, PAYER, PLAN, RULES, STRANGER
from tests.contracts.x402_signer import ChainSigner

NETWORK = f"eip155:{CHAIN_ID}"
TOKEN = checksummed(AT.token)
GATE = OWNERS["gate"].address
PRICE_WEI = 1_000


class Shop:
    """A gateway that sells one thing for 1000 wei, a facilitator of its own, and a wallet with 10^9 wei."""

    def __init__(self) -> None:
        # x402 looks at the wall clock, so the chain's time starts there.
        self.chain = BytecodeChain(PLAN)
        self.signer = ChainSigner(self.chain, STRANGER.address, int(time.time()))
        for sender, call in (
            (DEPLOYER, calls.Transfer(PAYER.address, 10**9)),
            (OWNERS["gate"], calls.Register(GATEWAY, ZERO_DIGEST)),
        ):
            assert isinstance(self.chain.execute(call, sender.address, self.signer.block()), tuple)
        authorizer = LocalAuthorizerSigner(Account.from_key(HOTS["gate"].secret()))
        self.scheme = BatchServer(
            checksummed(GATE), BatchSettlementEvmSchemeServerConfig(receiver_authorizer_signer=authorizer)
        )
        self.facilitator = x402FacilitatorSync()
        self.facilitator.register([NETWORK], BatchSettlementEvmFacilitator(self.signer, authorizer))
        self.facilitator.register([NETWORK], ExactFacilitator(self.signer))
        self.server = x402ResourceServerSync(self.facilitator)
        self.server.register(NETWORK, self.scheme).register(NETWORK, ExactServer())
        self.server.initialize()
        self.manager = BatchSettlementChannelManagerSync(
            ChannelManagerConfigSync(
                scheme=self.scheme,
                facilitator=self.facilitator,
                receiver=checksummed(GATE),
                token=TOKEN,
                network=NETWORK,
            )
        )
        wallet = Account.from_key(PAYER.secret())
        self.client = x402ClientSync()
        self.client.register(NETWORK, BatchClient(wallet)).register(NETWORK, ExactClient(wallet))
        self.client.set_spend_controls({"allowed_assets": [{"network": NETWORK, "asset": TOKEN}]})

    def sell(self, scheme: str) -> Any:
        """One request as the client and the server live it: 402, payment, verification, settlement."""
        price = AssetAmount(
            amount=str(PRICE_WEI),
            asset=TOKEN,
            extra={"name": "ClusterAI", "version": "1", "assetTransferMethod": "eip3009"},
        )
        config = ResourceConfig(
            scheme=scheme, pay_to=checksummed(GATE), price=price, network=NETWORK, max_timeout_seconds=300
        )
        [requirements] = self.server.build_payment_requirements(config)
        required = self.server.create_payment_required_response([requirements])
        payload = self.client.create_payment_payload(required)
        verified = self.server.verify_payment(payload, requirements)
        assert verified.is_valid, verified
        settled = self.server.settle_payment(payload, requirements)
        assert settled.success, settled
        self.client.handle_payment_response(PaymentResponseContext(payload, requirements, settled, required))
        return settled

    def events(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.signer.events if isinstance(event, kind)]

    def balance(self, of: Address) -> int:
        return self.chain.read("Token", "balanceOf", of)


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_exact_pays_at_once(shop: Shop) -> None:
    """One signature moves the price from the wallet to the gateway's owner."""
    shop.sell("exact")
    assert shop.balance(GATE) == PRICE_WEI


def test_batch_settlement_pays_many_with_one_deposit(shop: Shop) -> None:
    """The first request deposits, the next ones sign vouchers only; one claim takes all, held for the window."""
    for _ in range(4):
        shop.sell("batch-settlement")
    assert len(shop.events(Deposited)) == 1
    shop.manager.claim()
    assert [(one.amount, one.total_claimed) for one in shop.events(Claimed)] == [
        (4 * PRICE_WEI, 4 * PRICE_WEI)
    ]
    shop.manager.settle()
    assert shop.balance(GATE) == 0
    shop.signer.now_s += 2 * RULES.window_s
    shop.manager.settle()
    assert [one.amount for one in shop.events(Settled)] == [4 * PRICE_WEI]
    assert shop.balance(GATE) == 4 * PRICE_WEI


def test_batch_settlement_refunds_what_was_not_used(shop: Shop) -> None:
    """The manager claims what was earned and gives the rest of the deposit back, in one multicall."""
    shop.sell("batch-settlement")
    shop.manager.refund()
    [deposited], [refunded] = shop.events(Deposited), shop.events(Refunded)
    assert refunded.amount == deposited.amount - PRICE_WEI
    assert shop.balance(PAYER.address) == 10**9 - PRICE_WEI
    assert shop.signer.gas[-1][0] == "multicall"


def test_spent_deposit_is_topped_up(shop: Shop) -> None:
    """When the deposit runs out the client deposits again into the same channel."""
    for _ in range(12):
        shop.sell("batch-settlement")
    assert len({one.channel_id for one in shop.events(Deposited)}) == 1
    assert len(shop.events(Deposited)) > 1
