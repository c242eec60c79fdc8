"""What a gateway lists of data, and what it refuses to."""

import msgspec
import pytest

from clusterai.gateway.core.shelf import Shelf, ShelfLimits
from clusterai.protocol.calls import DataListing, OfferData
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import BadSignature, Key, recover
from clusterai.protocol.statements import network_domain
from clusterai.protocol.vaults import dataset_id
from tests.rooms.vaults.listings import listed

NETWORK = network_domain(31415, Address(b"r" * 20))
OWNER, HOT, THIEF = (Key(bytes([n]) * 32) for n in (1, 2, 3))
HERE, THERE = Address(b"h" * 20), Address(b"t" * 20)


def signer(digest: Digest, signature: bytes) -> Address | None:
    try:
        return recover(digest, signature)
    except BadSignature:
        return None


def fresh(**limits: int) -> Shelf:
    owners = {HOT.address: OWNER.address}
    return Shelf(NETWORK, signer, owners.get, ShelfLimits(**limits))


def offer(shelf: Shelf, *listings: DataListing, provider: Address = HERE) -> list[str]:
    return shelf.heard(provider, OfferData(listings, (), ()))


def test_data_is_listed_for_its_owner_by_its_hot_key():
    """A listing signed by the owner or a key that acts for it is found by the words of its card."""
    shelf = fresh()
    mine = listed(HOT, NETWORK, "hearts", OWNER.address, pretty_name="Heart Disease", license="cc-by-4.0")
    assert offer(shelf, mine, listed(OWNER, NETWORK, "lungs")) == []
    assert [it.card["name"] for it in shelf.find("DISEASE heart")] == ["hearts"]
    assert {it.card["name"] for it in shelf.find(owner=OWNER.address)} == {"hearts", "lungs"}
    assert list(shelf.find("kidneys")) == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (listed(THIEF, NETWORK, "hearts", OWNER.address), "not signed"),
        (
            listed(THIEF, NETWORK, "hearts", dataset=dataset_id(OWNER.address, "hearts")),
            "isn't that of its owner",
        ),
        (listed(THIEF, network_domain(1, Address(b"r" * 20)), "hearts", OWNER.address), "not signed"),
        (
            msgspec.structs.replace(listed(OWNER, NETWORK, "hearts"), card=b'{"name":"lungs"}'),
            "isn't the one",
        ),
        (msgspec.structs.replace(listed(OWNER, NETWORK, "hearts"), listing=b"\x90"), "no listing"),
        (listed(OWNER, NETWORK, "x" * 70, dataset=Digest(bytes(32))), "isn't that of its owner"),
    ],
)
def test_what_isnt_its_owners_isnt_listed(said: DataListing, why: str):
    """Another's name, another network's signature, another card: none takes a data set's place."""
    shelf = fresh()
    (reason,) = offer(shelf, said)
    assert why in reason
    assert not shelf.datasets


def test_the_highest_serial_stands():
    """An older listing doesn't come back, also when nobody has the newer any more, and one serial isn't used twice."""
    shelf = fresh()
    old, new = (listed(OWNER, NETWORK, "hearts", serial=n, version=n) for n in (1, 2))
    assert offer(shelf, old) == []
    assert offer(shelf, new, provider=THERE) == []
    (only,) = shelf.datasets.values()
    assert (only.card["version"], list(only.holders)) == (2, [THERE])
    assert "serial 1 after 2" in offer(shelf, old)[0]
    shelf.unlinked(THERE)
    assert not shelf.datasets
    assert "serial 1 after 2" in offer(shelf, old)[0]
    assert "serial 2 after 2" in offer(shelf, listed(OWNER, NETWORK, "hearts", serial=2, version=3))[0]
    assert offer(shelf, new) == []


def test_data_is_listed_while_somebody_has_it():
    """Of several holders the last to go takes the listing with it."""
    shelf = fresh()
    said = listed(OWNER, NETWORK, "hearts")
    for provider in (HERE, THERE):
        assert offer(shelf, said, provider=provider) == []
    shelf.heard(HERE, OfferData((), (dataset_id(OWNER.address, "hearts"),), ()))
    assert [list(it.holders) for it in shelf.datasets.values()] == [[THERE]]
    shelf.unlinked(THERE, 70.0)
    assert not shelf.datasets
    assert [(it.name, it.at_s) for it in shelf.left("Hea")] == [("hearts", 70.0)]
    assert offer(shelf, said) == []
    assert not list(shelf.left(""))
    shelf.heard(HERE, OfferData((), (dataset_id(OWNER.address, "hearts"),), ()))
    assert not list(shelf.left("")), "who withdraws it isn't away"
    assert offer(fresh(most_bytes=0), said) == ["there is no room for more cards"]


def test_nobody_fills_the_shelf():
    """One provider's data sets and cards are bounded, and what is withdrawn frees its room."""
    shelf = fresh(provider_listings=2, provider_bytes=150)
    small = [listed(OWNER, NETWORK, name) for name in ("a", "b", "c")]
    assert offer(shelf, small[0], small[1]) == []
    assert "as many data sets" in offer(shelf, small[2])[0]
    shelf.heard(HERE, OfferData((), (dataset_id(OWNER.address, "a"),), ()))
    large = listed(OWNER, NETWORK, "large", text="x" * 200)
    assert "no room" in offer(shelf, large)[0]
    assert offer(shelf, small[2]) == []


def test_calls_go_to_who_answers_them():
    """What a provider says last of its subjects holds, until its link ends."""
    shelf, one, other = fresh(), Digest(b"1" * 32), Digest(b"2" * 32)
    shelf.heard(HERE, OfferData((), (), (one, other)))
    shelf.heard(THERE, OfferData((), (), (one,)))
    assert shelf.answerers(one) == [HERE, THERE]
    shelf.heard(HERE, OfferData((), (), (other,)))
    assert shelf.answerers(one) == [THERE]
    shelf.unlinked(THERE)
    assert shelf.answerers(one) == []
