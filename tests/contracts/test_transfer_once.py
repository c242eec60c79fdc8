"""A transfer that the chain itself refuses to carry out twice: what payouts rest on."""

from clusterai.ledger.core import calls
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Digest
from clusterai.protocol.signing import Key
from tests.contracts.bytecode import CHAIN_ID
from tests.contracts.cast import AT, DEPLOYER, PAYER, STRANGER, Pair

TOKEN = Domain("ClusterAI", "1", CHAIN_ID, AT.token)


def transfer(value: int, nonce: int, by: Key = PAYER) -> calls.TransferWithAuthorization:
    name = Digest(nonce.to_bytes(32))
    return calls.transfer_once(PAYER.address, STRANGER.address, value, name, by.sign, TOKEN)


def test_a_nonce_passes_once_whoever_sends_it_and_with_whatever_amount() -> None:
    """Bytecode and twin agree: money moves once; again, or for another amount, the used nonce is named."""
    pair = Pair()
    pair.populate()
    had_wei = pair.twin.token.balance(STRANGER.address)
    pair.expect(transfer(5, 1), PAYER)
    assert pair.refused(transfer(5, 1), DEPLOYER) == "ERC3009UsedAuthorization"
    assert pair.refused(transfer(6, 1), PAYER) == "ERC3009UsedAuthorization"
    pair.expect(transfer(5, 2), DEPLOYER)
    assert pair.twin.token.balance(STRANGER.address) == had_wei + 10


def test_another_key_can_not_move_the_money() -> None:
    """Only the holder's signature counts."""
    pair = Pair()
    pair.populate()
    assert pair.refused(transfer(5, 1, STRANGER), STRANGER) == "ERC3009InvalidSignature"
