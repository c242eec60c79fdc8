"""What a buyer of copies sees of its money, by what the chain tells."""

import pytest

from clusterai.cli.datasets.refunding import purchases
from clusterai.ledger.core import events
from clusterai.ledger.core.vault_calls import DatasetTerms
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest

ME, OTHER, SELLER = (Address(it * 20) for it in (b"M", b"O", b"S"))
DATA, SALE, THEIRS, GRANT = (Digest(it * 32) for it in (b"d", b"s", b"t", b"g"))
TERMS = DatasetTerms(ZERO_DIGEST, ZERO_DIGEST, ZERO_DIGEST, ZERO_DIGEST, 1, 1, 30)
BOUGHT = (
    events.DatasetListed(DATA, SELLER, ZERO_DIGEST, TERMS),
    events.CopyBought(SALE, DATA, ME, ZERO_DIGEST, ME, 30, 99),
    events.CopyBought(THEIRS, DATA, ME, ZERO_DIGEST, OTHER, 30, 99),
)
DELIVERED = events.CopyDelivered(SALE, GRANT)


def convicted(who: Address) -> events.Convicted:
    return events.Convicted(who, 0, 0, 0, ZERO_DIGEST, 1)


@pytest.mark.parametrize(
    ("then", "state", "comes_back"),
    [
        ((), "in escrow", True),
        ((DELIVERED,), "delivered", False),
        ((DELIVERED, events.GrantEnded(GRANT, DATA, 1)), "delivered", True),
        ((DELIVERED, convicted(SELLER)), "delivered", True),
        ((DELIVERED, convicted(OTHER)), "delivered", False),
        ((DELIVERED, events.SaleClosed(SALE, 30, 0)), "paid", False),
        ((events.SaleClosed(SALE, 0, 30),), "given back", False),
    ],
)
def test_a_buyer_asks_back_what_the_contract_would_give(
    then: tuple[events.Event, ...], state: str, comes_back: bool
) -> None:
    """Its own payments alone: late, revoked or sold by a convict they come back; delivered and closed ones don't."""
    [found] = purchases((*BOUGHT, *then), ME)
    assert (found.state, found.may_come_back(now_s=100)) == (state, comes_back)
    assert not purchases(BOUGHT, ME)[0].may_come_back(now_s=99)
