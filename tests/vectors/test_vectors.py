"""The vectors, held against two libraries that are not ours and against our own decoders."""

import json
from importlib import util
from pathlib import Path
from typing import Any, cast

import pytest
from coincurve import PublicKey
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_hash.auto import keccak
from x402.mechanisms.evm.batch_settlement.constants import VOUCHER_TYPES
from x402.mechanisms.evm.batch_settlement.facilitator.utils import (
    verify_batch_settlement_voucher_typed_data,
)
from x402.mechanisms.evm.batch_settlement.types import ChannelConfig as X402ChannelConfig
from x402.mechanisms.evm.batch_settlement.utils import (
    compute_channel_id,
    get_batch_settlement_eip712_domain,
)

from clusterai.audit.core.draw import is_drawn
from clusterai.audit.core.opening import Opening
from clusterai.protocol import canonical, merkle
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Answer, Frame, Relayed, Transcript
from clusterai.protocol.signing import recover
from clusterai.work.inference import Generation

FOLDER = Path(__file__).parent

TYPES = {
    "Voucher": "bytes32 channelId,uint128 maxClaimableAmount",
    "Order": "address gateway,address provider,bytes32 model,bytes32 request,bytes32 channelId,uint128 inputPrice,"
    "uint128 outputPrice,uint128 cap,uint40 expiresAt,bytes32 nonce",
    "Receipt": "bytes32 order,address provider,address gateway,bytes32 model,bytes32 answer,uint32 inputUnits,"
    "uint32 outputUnits,uint128 amount,uint40 epoch",
    "Verdict": "address provider,uint64 epoch,uint32 index,bytes32 leaf,uint8 outcome,bytes32 evidence",
    "Clearance": "address provider,uint64 epoch,bytes32 root,uint32 audited,bytes32 evidence",
    "Greeting": "address speaker,uint8 role,bytes32 binding",
    "Delegation": "address owner,address hot",
}


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


STATEMENTS: list[dict[str, Any]] = load("statements")["statements"]


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def typed(vector: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(domain, types, message) as eth_account takes them."""
    domain = load("statements")["domains"][vector["domain"]]
    fields = [field.split() for field in TYPES[vector["type"]].split(",")]
    values = list(vector["value"].values())
    message = {
        name: raw(value) if kind == "bytes32" else value
        for (kind, name), value in zip(fields, values, strict=True)
    }
    return (
        {
            "name": domain["name"],
            "version": domain["version"],
            "chainId": domain["chain_id"],
            "verifyingContract": domain["contract"],
        },
        {vector["type"]: [{"name": name, "type": kind} for kind, name in fields]},
        message,
    )


def test_the_files_are_what_the_code_says() -> None:
    """The vectors in the repository are those that the code makes: a difference is a change of the protocol."""
    spec = util.spec_from_file_location("make_vectors", FOLDER.parent.parent / "scripts" / "make_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path, text in module.everything():
        assert path.read_text() == text, f"{path.name}: run scripts/make_vectors.py and say why in the commit"


@pytest.mark.parametrize("vector", STATEMENTS, ids=[it["type"] for it in STATEMENTS])
def test_eth_account_arrives_at_the_same_digest(vector: dict[str, Any]) -> None:
    """Hand-packed digests equal eth_account's, whose signature is ours byte for byte."""
    signable = encode_typed_data(*typed(vector))
    assert signable.body == raw(vector["struct_hash"])
    digest = keccak(b"\x19\x01" + signable.header + signable.body)
    assert digest == raw(vector["signing_digest"])
    signed = Account.from_key(vector["secret"]).sign_message(signable)  # pyright: ignore[reportUnknownVariableType]
    assert bytes(signed.signature) == raw(vector["signature"])
    assert recover(Digest(digest), raw(vector["signature"])) == raw(vector["signer"])


def test_x402_arrives_at_the_same_channel_and_voucher() -> None:
    """x402's own functions give the channel's id, and take our voucher's signature."""
    data = load("statements")
    config = data["channel"]["config"]
    theirs = X402ChannelConfig(
        payer=config["payer"],
        payer_authorizer=config["payer_authorizer"],
        receiver=config["receiver"],
        receiver_authorizer=config["receiver_authorizer"],
        token=config["token"],
        withdraw_delay=config["withdraw_delay_s"],
        salt=config["salt"],
    )
    chain_id = data["domains"]["channels"]["chain_id"]
    assert compute_channel_id(theirs, chain_id) == data["channel"]["id"]
    domain = get_batch_settlement_eip712_domain(chain_id)
    assert domain["name"] == data["domains"]["channels"]["name"]
    assert domain["verifyingContract"].lower() == data["domains"]["channels"]["contract"]
    voucher = STATEMENTS[0]
    assert [field["type"] for field in VOUCHER_TYPES["Voucher"]] == ["bytes32", "uint128"]
    assert verify_batch_settlement_voucher_typed_data(
        cast("Any", None),
        voucher["value"]["channel_id"],
        str(voucher["value"]["amount_wei"]),
        voucher["signer"],
        voucher["signer"],
        voucher["signature"],
        chain_id,
    )


@pytest.mark.parametrize(
    ("part", "kind"), [("frames", Frame), ("relayed", Relayed)], ids=["frames", "relayed"]
)
def test_frames_decode_to_what_they_say(part: str, kind: Any) -> None:
    """The bytes of every frame are read back as that frame, and written the same."""
    for vector in load("frames")[part]:
        frame = canonical.decode(raw(vector["bytes"]), kind)
        assert type(frame).__name__ == vector["type"]
        assert canonical.encode(frame) == raw(vector["bytes"])
        assert canonical.digest(frame) == raw(vector["digest"])


def test_every_frame_has_a_vector() -> None:
    """A frame without vectors could change unseen."""
    named = {vector["type"] for part in ("frames", "relayed") for vector in load("frames")[part]}
    assert named == {kind.__name__ for kind in (*Frame.__args__, *Relayed.__args__)}


def test_values_decode_to_what_they_say() -> None:
    """Requests, answers, transcripts and openings: what digests in orders and receipts are of."""
    kinds: dict[str, Any] = {
        "Generation": Generation,
        "Answer": Answer,
        "Transcript": Transcript,
        "ReceiptOpening": Opening,
    }
    for vector in load("frames")["values"]:
        value = canonical.decode(raw(vector["bytes"]), kinds[vector["type"]])
        assert canonical.digest(value) == raw(vector["digest"])


def test_digests_chain_from_receipt_to_request() -> None:
    """receipt.order names the order, order.request the request, receipt.answer the answer."""
    by_type = {vector["type"]: vector for vector in STATEMENTS}
    values = {vector["type"]: vector for vector in load("frames")["values"]}
    assert by_type["Receipt"]["value"]["order"] == by_type["Order"]["digest"]
    assert by_type["Order"]["value"]["request"] == values["Generation"]["digest"]
    assert by_type["Receipt"]["value"]["answer"] == values["Answer"]["digest"]


def test_trees_and_their_proofs() -> None:
    """Roots and proofs of the tree, as `Court.sol` walks it."""
    for tree in load("merkle")["trees"]:
        leaves = [Digest(raw(value)) for value in tree["values"]]
        root = Digest(raw(tree["root"]))
        assert merkle.root(leaves) == root
        for index, path in enumerate(tree["proofs"]):
            siblings = [Digest(raw(step)) for step in path]
            assert merkle.verify(root, leaves[index], index, len(leaves), siblings)


def test_the_draw() -> None:
    """Lots and what they draw, as `Court.sol` does it."""
    data = load("draw")
    at = (
        Digest(raw(data["beacon"])),
        Address(raw(data["provider"])),
        data["epoch"],
        Digest(raw(data["root"])),
    )
    for rate, expected in data["drawn_of_100"].items():
        assert [index for index in range(100) if is_drawn(*at, index, int(rate))] == expected
    for index, lot in enumerate(data["lots"]):
        packed = at[0] + at[1] + at[2].to_bytes(8) + at[3] + index.to_bytes(4)
        assert int.from_bytes(keccak(packed)) == int(lot, 16)


def test_signatures_are_of_known_keys() -> None:
    """The secrets in the vectors are 1, 2 and 3: nobody may mistake them for anything to keep."""
    for vector in STATEMENTS:
        secret = int(vector["secret"], 16)
        assert secret in (1, 2, 3)
        public = PublicKey.from_valid_secret(secret.to_bytes(32)).format(compressed=False)
        assert keccak(public[1:])[-20:] == raw(vector["signer"])
