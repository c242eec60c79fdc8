"""x402's own facilitator and client settle an `exact` payment in our token, on both chains and without changes."""

from eth_account import Account
from x402 import PaymentPayload, PaymentRequirements, x402FacilitatorSync
from x402.mechanisms.evm.exact import ExactEvmClientScheme, register_exact_evm_facilitator
from x402.mechanisms.evm.signers import EthAccountSigner, FacilitatorWeb3Signer

from clusterai.protocol.ids import Address, checksummed
from clusterai.protocol.signing import Key
from tests.rooms.ledger.conftest import CHAIN_ID, OWNER, RICH, World

PAYEE = Address(b"\x4a" * 20)
NAME = "ClusterAI"
NETWORK = f"eip155:{CHAIN_ID}"


def payment(world: World, payer: Key, amount: int) -> tuple[PaymentPayload, PaymentRequirements]:
    wants = PaymentRequirements(
        scheme="exact",
        network=NETWORK,
        asset=checksummed(world.network.contracts.token),
        amount=str(amount),
        pay_to=checksummed(PAYEE),
        max_timeout_seconds=600,
        extra={"name": NAME, "version": "1"},
    )
    signer = EthAccountSigner(Account.from_key(payer.secret()))
    signed = ExactEvmClientScheme(signer).create_payment_payload(wants)
    return PaymentPayload(x402_version=2, payload=signed, accepted=wants), wants


def test_an_exact_payment_is_verified_and_settled(world: World):
    """Signature by the client, one transaction by the facilitator; a replay and an overdraft are refused."""
    signer = FacilitatorWeb3Signer(RICH[0].secret().hex(), world.process.url)
    facilitator = x402FacilitatorSync()
    register_exact_evm_facilitator(facilitator, signer, networks=NETWORK)
    payload, wants = payment(world, OWNER, 123)
    verified = facilitator.verify(payload, wants)
    assert verified.is_valid, verified
    settled = facilitator.settle(payload, wants)
    assert settled.success, settled
    assert signer.get_balance(checksummed(PAYEE), checksummed(world.network.contracts.token)) == 123
    assert not facilitator.verify(payload, wants).is_valid
    assert not facilitator.verify(*payment(world, Key(b"\x4b" * 32), 5)).is_valid
