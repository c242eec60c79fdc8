"""Offers and measurements of machines: vectors against eth-account, chapter 8 of the specification against the code."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import SignableMessage, encode_typed_data

from clusterai.market.core.placement.feed import SKEW_S
from clusterai.market.core.placement.offers import MEASUREMENT_LIFE_S
from clusterai.protocol import canonical
from clusterai.protocol.belonging import (
    MOST_BELONGING_BYTES,
    MOST_BELONGING_S,
    Belonging,
    decode_belonging,
    owner_of,
)
from clusterai.protocol.belonging import SKEW_S as BELONGING_SKEW_S
from clusterai.protocol.eip712 import type_hash
from clusterai.protocol.ids import Address, address, hex0x
from clusterai.protocol.offers import (
    MOST_BYTES,
    MOST_LIFE_S,
    MOST_PLACE_US,
    MOST_PRICE_WEI,
    Field,
    MachineMeasurement,
    MachineOffer,
    decode_measurement,
    decode_offer,
)
from clusterai.protocol.signing import recover
from clusterai.protocol.statements import network_domain

FOLDER = Path(__file__).parent
VECTORS = json.loads((FOLDER / "offers.json").read_text())
TEXT = (FOLDER.parents[1] / "docs" / "spec" / "08-offers.md").read_text()
TYPES = dict(re.findall(r"^(Machine\w+|Belonging)\(([\w ,]+)\)$", TEXT, re.MULTILINE))


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


@pytest.fixture(params=VECTORS["statements"], ids=lambda it: it["type"])
def vector(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def typed(kind: str, values: list[Any]) -> SignableMessage:
    """As eth-account has it, given the types as the specification writes them."""
    fields = [field.split() for field in TYPES[kind].split(",")]
    domain = VECTORS["domain"]
    return encode_typed_data(
        {
            "name": domain["name"],
            "version": domain["version"],
            "chainId": domain["chain_id"],
            "verifyingContract": domain["contract"],
        },
        {kind: [{"type": of, "name": name} for of, name in fields]},
        dict(zip([name for _, name in fields], values, strict=True)),
    )


def test_another_implementation_signs_the_same(vector: dict[str, Any]) -> None:
    """eth-account, given the types as the specification writes them, comes to our signature."""
    message = typed(vector["type"], list(vector["value"].values()))
    assert Account.sign_message(message, vector["secret"]).signature == raw(vector["signature"])
    assert recover(canonical.Digest(raw(vector["signing_digest"])), raw(vector["signature"])) == raw(
        vector["signer"]
    )


def test_our_decoders_take_them_and_nothing_longer(vector: dict[str, Any]) -> None:
    """The bytes decode to the value, and each cut or lengthened form of them to nothing."""
    decode = {"MachineOffer": decode_offer, "MachineMeasurement": decode_measurement}[vector["type"]]
    data = raw(vector["bytes"])
    assert canonical.encode(decode(data)) == data
    for wrong in (*(data[:at] for at in range(len(data))), data + b"\0", data + bytes(MOST_BYTES)):
        with pytest.raises(canonical.Malformed):
            decode(wrong)


def test_both_sides_sign_whose_a_machine_is() -> None:
    """eth-account comes to both signatures of the vector, and it holds of its account alone, in its time."""
    vector = VECTORS["belonging"]
    *said, owner_signature, account_signature = vector["value"].values()
    message = typed("Belonging", said)
    for secret, signature in (
        (vector["owner_secret"], owner_signature),
        (vector["account_secret"], account_signature),
    ):
        assert Account.sign_message(message, secret).signature == raw(signature)
    found = decode_belonging(raw(vector["bytes"]))
    assert canonical.encode(found) == raw(vector["bytes"])
    domain = network_domain(VECTORS["domain"]["chain_id"], address(VECTORS["domain"]["contract"]))
    assert hex0x(found.signing_digest(domain)) == vector["signing_digest"]
    owner, account = Address(found.owner), Address(found.account)
    assert owner_of(found, account, domain, found.issued_s) == owner
    assert owner_of(found, owner, domain, found.issued_s) is None
    assert owner_of(found, account, domain, found.expires_s) is None
    for at in range(len(raw(vector["bytes"]))):
        with pytest.raises(canonical.Malformed):
            decode_belonging(raw(vector["bytes"])[:at])


def test_types_and_numbers_are_specified() -> None:
    """The text's types are those that are hashed, its numbers the constants."""
    for kind in (MachineOffer, MachineMeasurement, Belonging):
        assert type_hash(f"{kind.__name__}({TYPES[kind.__name__]})") == kind.TYPE
    for phrase in (
        f"at most {MOST_BYTES} with",
        f"at most {MOST_PRICE_WEI:,} of",
        f"{MOST_LIFE_S:,} s at most",
        f"none beyond {MOST_PLACE_US:,}",
        f"further off than {SKEW_S} s",
        f"at most {MOST_BELONGING_BYTES} bytes. It holds",
        f"no further than {BELONGING_SKEW_S} s in",
        f"at most {MOST_BELONGING_S:,} s after",
        f"older than {MEASUREMENT_LIFE_S:,} s",
        *(f"| {it.value} | {it.name} |" for it in Field),
    ):
        assert phrase in TEXT, phrase
