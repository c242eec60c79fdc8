"""Offers and measurements of machines: vectors against eth-account, chapter 8 of the specification against the code."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from clusterai.market.core.placement.feed import SKEW_S
from clusterai.market.core.placement.offers import MEASUREMENT_LIFE_S
from clusterai.protocol import canonical
from clusterai.protocol.eip712 import type_hash
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

FOLDER = Path(__file__).parent
VECTORS = json.loads((FOLDER / "offers.json").read_text())
TEXT = (FOLDER.parents[1] / "docs" / "spec" / "08-offers.md").read_text()
TYPES = dict(re.findall(r"^(Machine\w+)\(([\w ,]+)\)$", TEXT, re.MULTILINE))


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


@pytest.fixture(params=VECTORS["statements"], ids=lambda it: it["type"])
def vector(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def test_another_implementation_signs_the_same(vector: dict[str, Any]) -> None:
    """eth-account, given the types as the specification writes them, comes to our signature."""
    fields = [field.split() for field in TYPES[vector["type"]].split(",")]
    domain = VECTORS["domain"]
    message = encode_typed_data(
        {
            "name": domain["name"],
            "version": domain["version"],
            "chainId": domain["chain_id"],
            "verifyingContract": domain["contract"],
        },
        {vector["type"]: [{"type": kind, "name": name} for kind, name in fields]},
        dict(zip([name for _, name in fields], vector["value"].values(), strict=True)),
    )
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


def test_types_and_numbers_are_specified() -> None:
    """The text's types are those that are hashed, its numbers the constants."""
    for kind in (MachineOffer, MachineMeasurement):
        assert type_hash(f"{kind.__name__}({TYPES[kind.__name__]})") == kind.TYPE
    for phrase in (
        f"at most {MOST_BYTES} with",
        f"at most {MOST_PRICE_WEI:,} of",
        f"{MOST_LIFE_S:,} s at most",
        f"none beyond {MOST_PLACE_US:,}",
        f"further off than {SKEW_S} s",
        f"older than {MEASUREMENT_LIFE_S:,} s",
        *(f"| {it.value} | {it.name} |" for it in Field),
    ):
        assert phrase in TEXT, phrase
