"""Raw transactions, and the RLP that they are written in."""

from clusterai.ledger.adapters.embedded.transactions import BadTransaction, decode_transaction
from clusterai.ledger.core.rlp import BadRlp, decode_rlp, encode_rlp
from tests.rooms.ledger.conftest import CHAIN_ID
from tests.rooms.ledger.test_embedded_fuzz import VALID


def once(data: bytes) -> bool:
    """RLP has one spelling; a transaction is somebody's or refused."""
    for raw in (data, data[1:]):
        try:
            assert encode_rlp(decode_rlp(raw)) == raw
        except BadRlp:
            continue
    try:
        transaction = decode_transaction(data, CHAIN_ID)
    except BadTransaction:
        return False
    assert transaction.raw == data
    assert len(transaction.sender) == 20
    return True


def seeds() -> list[bytes]:
    return [VALID]
