"""Chapter 12 of the specification: its vectors by eth_account and by its formulas, its types against the code."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from eth_abi import abi
from eth_account import Account
from eth_account.messages import encode_typed_data

from clusterai.ledger.core.twin.rewards import BOND_BPS, GRACE_S
from clusterai.ledger.core.twin.vaults import MAX_DELIVERY_S, MAX_LAG_S, MAX_ROYALTY_BPS
from clusterai.protocol import canonical, merkle, vaults
from clusterai.protocol.eip712 import type_hash
from clusterai.protocol.ids import Address, Digest, checksummed
from clusterai.protocol.keccak import keccak
from clusterai.protocol.pots import MOST_PARTICIPANTS, MOST_REFERRAL_BPS
from clusterai.protocol.sealing import SealedCall, decode_call
from clusterai.protocol.statements import network_domain

HERE = Path(__file__).parent
TEXT = (HERE.parents[1] / "docs" / "spec" / "12-vaults.md").read_text()
VECTORS: dict[str, Any] = json.loads((HERE / "vaults.json").read_text())
KINDS = {kind.__name__: kind for kind in (vaults.AccessRequest, vaults.Grant, vaults.Use, vaults.Listing)}


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def type_of(name: str) -> str:
    """The type's text, out of the chapter."""
    return next(line for line in TEXT.splitlines() if line.startswith(name + "("))


def test_names_follow_from_the_chapters_formulas() -> None:
    """Dataset and subjects are digests of the owner, the name and the kind."""
    owner = raw(VECTORS["owner"])
    dataset = keccak(b"clusterai dataset" + owner + keccak(VECTORS["name"].encode()))
    assert dataset == raw(VECTORS["dataset"]) == vaults.dataset_id(Address(owner), VECTORS["name"])
    for kind, subject in VECTORS["subjects"].items():
        assert keccak(b"clusterai subject" + dataset + kind.encode()) == raw(subject)
        assert vaults.subject(Digest(dataset), kind) == raw(subject)


@pytest.mark.parametrize("name", KINDS)
def test_types_of_vaults_are_those_of_the_code(name: str) -> None:
    """The chapter's types hash to the code's."""
    assert type_hash(type_of(name)) == KINDS[name].TYPE


@pytest.mark.parametrize("vector", VECTORS["statements"], ids=[it["type"] for it in VECTORS["statements"]])
def test_eth_account_signs_vault_statements_alike(vector: dict[str, Any]) -> None:
    """Digest and signature of each statement are eth_account's."""
    name, domain = vector["type"], VECTORS["domain"]
    fields = [field.split() for field in type_of(name).partition("(")[2].rstrip(")").split(",")]
    message = {
        field: raw(value) if kind == "bytes32" else value
        for (kind, field), value in zip(fields, vector["value"].values(), strict=True)
    }
    signable = encode_typed_data(
        {
            "name": domain["name"],
            "version": domain["version"],
            "chainId": domain["chain_id"],
            "verifyingContract": domain["contract"],
        },
        {name: [{"name": field, "type": kind} for kind, field in fields]},
        message,
    )
    assert signable.body == raw(vector["struct_hash"])
    assert keccak(b"\x19\x01" + signable.header + signable.body) == raw(vector["signing_digest"])
    signed = Account.from_key(vector["secret"]).sign_message(signable)  # pyright: ignore[reportUnknownVariableType]
    assert bytes(signed.signature) == raw(vector["signature"])
    decoded = canonical.decode(raw(vector["bytes"]), KINDS[name])
    assert decoded.struct() == raw(vector["struct_hash"])


def test_signed_statements_know_their_signer() -> None:
    """A request, a use and a listing hold under their signer's key, and under no other's."""
    domain = VECTORS["domain"]
    network = network_domain(domain["chain_id"], Address(raw(domain["contract"])))
    by_type = {it["type"]: it for it in VECTORS["statements"]}

    def value(name: str) -> Any:
        return canonical.decode(raw(by_type[name]["bytes"]), KINDS[name])

    request = vaults.SignedRequest(value("AccessRequest"), raw(by_type["AccessRequest"]["signature"]))
    assert request.holds(network)
    other = msgspec.structs.replace(request.request, uses=request.request.uses + 1)
    assert not vaults.SignedRequest(other, request.signature).holds(network)
    hot, stranger = Address(raw(by_type["Use"]["signer"])), Address(raw(by_type["AccessRequest"]["signer"]))
    for signed in (
        vaults.SignedUse(value("Use"), raw(by_type["Use"]["signature"])),
        vaults.SignedListing(value("Listing"), raw(by_type["Listing"]["signature"])),
    ):
        assert signed.signed_by(hot, network)
        assert not signed.signed_by(stranger, network)


def test_the_log_proves_each_use_at_its_index() -> None:
    """Every leaf of the log is shown by its proof, at its own index only."""
    log = VECTORS["log"]
    leaves, root = [Digest(raw(leaf)) for leaf in log["leaves"]], Digest(raw(log["root"]))
    assert vaults.log_root(leaves) == root
    for index, steps in enumerate(log["proofs"]):
        proof = [Digest(raw(step)) for step in steps]
        assert tuple(proof) == vaults.log_proof(leaves, index)
        for other in range(3):
            assert merkle.verify(root, leaves[index], other, 3, proof) == (other == index)


@pytest.mark.parametrize(
    ("field", "value"),
    [("operation", 0), ("operation", 7), ("uses", 0), ("epsilon_micro", 2**63), ("code", bytes(31))],
)
def test_grants_out_of_bounds_are_not_read(field: str, value: int | bytes) -> None:
    """Bytes of a grant that no vault may give don't decode."""
    good = next(it for it in VECTORS["statements"] if it["type"] == "Grant")
    grant = canonical.decode(raw(good["bytes"]), vaults.Grant)
    bad = msgspec.structs.replace(grant, **{field: value})
    with pytest.raises(ValueError, match=r"."):
        canonical.decode(msgspec.msgpack.encode(bad), vaults.Grant)


@pytest.mark.parametrize("name", ["", "x" * 65, "ü" * 33])
def test_names_of_datasets_are_bounded(name: str) -> None:
    """A dataset is called by 1 to 64 bytes."""
    with pytest.raises(ValueError, match="1 to 64 bytes"):
        vaults.dataset_id(Address(bytes(20)), name)


def test_a_pot_is_hashed_and_shared_as_the_chapter_says() -> None:
    """Ids and digests by the types in the text, shares by its formulas."""
    data = VECTORS["pot"]
    pot, scores = data["pot"], data["scores"]
    hashed = keccak(
        type_hash(type_of("Pot"))
        + abi.encode(
            [
                "address",
                "address",
                "bytes32",
                "uint128",
                "uint64",
                "uint40",
                "uint40",
                "uint16",
                "bytes32",
                "bytes32",
                "bytes32",
            ],
            [
                pot["payer"],
                pot["evaluator"],
                raw(pot["study"]),
                pot["amount_wei"],
                pot["full"],
                pot["join_by_s"],
                pot["score_by_s"],
                pot["referral_bps"],
                raw(pot["nonce"]),
                *(
                    keccak(b"".join(raw(one).rjust(32, bytes(1)) for one in pot[name]))
                    for name in ("participants", "referrers")
                ),
            ],
        )
    )
    assert hashed == raw(data["id"]) == raw(scores["pot"])
    values: list[int] = scores["scores"]
    packed = keccak(b"".join(value.to_bytes(32) for value in values))
    assert keccak(type_hash(type_of("Scores")) + hashed + raw(scores["evidence"]) + packed) == raw(
        data["digest"]
    )
    for share, fee in zip(data["earned_wei"], data["referrals_wei"], strict=True):
        assert fee == share * pot["referral_bps"] // 10_000
    for full, earned in ((pot["full"], data["earned_wei"]), (data["full"], data["earned_of_full_wei"])):
        amount, whole = pot["amount_wei"], max(sum(values), full)
        assert sum(earned) == amount * sum(values) // whole
        for share, value in zip(earned, values, strict=True):
            assert 0 <= share - amount * value // whole <= (1 if value else 0)


def test_numbers_of_vaults_are_those_of_the_code() -> None:
    """Bounds in the text are the constants."""
    for phrase in (
        f"no more than {MAX_LAG_S:,} s ago".replace("no more", "nor more"),
        f"at most {MAX_ROYALTY_BPS:,})",
        f"at most {MAX_DELIVERY_S // 86_400} days",
        f"1 to {MOST_PARTICIPANTS}, in rising order",
        f"{BOND_BPS} ten-thousandths of the pot",
        f"`referralBps` at most {MOST_REFERRAL_BPS:,}",
        f"within {GRACE_S // 86_400} days",
    ):
        assert " ".join(phrase.split()) in " ".join(TEXT.split()), phrase
    for kind in vaults.Breach:
        assert f"| {int(kind)} {kind.name.lower()} |" in TEXT


def test_eth_account_signs_a_sealed_call_alike() -> None:
    """As the chapter's type says, with the digest of the body in the body's place."""
    vector, domain = VECTORS["sealed_call"], VECTORS["domain"]
    assert type_hash(type_of("SealedCall")) == SealedCall.TYPE
    fields = [field.split() for field in type_of("SealedCall").partition("(")[2].rstrip(")").split(",")]
    values = list(vector["value"].values())
    values[6] = "0x" + canonical.content_digest(raw(values[6])).hex()
    message = {
        field: raw(value) if kind == "bytes32" else value
        for (kind, field), value in zip(fields, values, strict=False)
    }
    typed = encode_typed_data(
        full_message={
            "types": {
                "EIP712Domain": [
                    {"name": "name", "type": "string"},
                    {"name": "version", "type": "string"},
                    {"name": "chainId", "type": "uint256"},
                    {"name": "verifyingContract", "type": "address"},
                ],
                "SealedCall": [{"name": field, "type": kind} for kind, field in fields],
            },
            "primaryType": "SealedCall",
            "domain": {
                "name": domain["name"],
                "version": domain["version"],
                "chainId": domain["chain_id"],
                "verifyingContract": domain["contract"],
            },
            "message": message,
        }
    )
    assert Account.recover_message(typed, signature=raw(vector["value"]["signature"])) == checksummed(
        Address(raw(vector["value"]["signer"]))
    )
    call = decode_call(raw(vector["bytes"]))
    network = network_domain(domain["chain_id"], Address(raw(domain["contract"])))
    assert call.holds(network)
    assert call.signing_digest(network) == raw(vector["signing_digest"])
