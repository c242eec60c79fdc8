"""`clusterai train check`: a server that dropped or weighed a vault falsely is told by what it signed."""

import json
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.cli import trainchecks
from clusterai.protocol.canonical import decode, encode
from clusterai.vault.core.secagg.messages import Claim
from clusterai.vault.core.secagg.proof import MAX_PROOF_BYTES, Proof
from clusterai.vault.core.secagg.transcript import Transcript, transcript_digest
from tests.rooms.training.studies import ME, close_vaults
from tests.rooms.training.test_groups import grouped, trained


@pytest.fixture(autouse=True)
def closed() -> Generator[None]:
    yield
    close_vaults()


def resigned(told: Transcript, **changes: Any) -> Transcript:
    """A lie that the server signs."""
    false = msgspec.structs.replace(told, **changes)
    return msgspec.structs.replace(false, signature=ME.key.sign(transcript_digest(false)))


def test_a_server_that_drops_or_weighs_vaults_falsely_is_told_by_what_it_signed(tmp_path: Path) -> None:
    """A true run checks; a sum without one vault, with a vault counted twice, with another sum, and a card that names others don't."""
    run = tmp_path / "run"
    trained(grouped(tmp_path, 6), run, 1, [])
    found = trainchecks.checked(run)
    assert found
    assert [it.fault for it in found] == [""] * len(found)
    card = json.loads((run / "lineage.json").read_text())
    place = min((run / "sums").iterdir())
    proof = decode(place.read_bytes(), Proof, MAX_PROOF_BYTES)
    told = proof.transcript
    one = told.roll.claims[0]
    twice = Claim(one.member, one.commitment, 2, one.signature)

    def lie(transcript: Transcript, name: str) -> set[str]:
        folder = tmp_path / name
        shutil.copytree(run, folder)
        (folder / "sums" / place.name).write_bytes(encode(Proof(transcript, proof.openings)))
        before = "0x" + transcript_digest(told).hex()
        text = (folder / "lineage.json").read_text()
        (folder / "lineage.json").write_text(text.replace(before, "0x" + transcript_digest(transcript).hex()))
        return {it.fault for it in trainchecks.checked(folder)} - {""}

    roll = told.roll
    short = msgspec.structs.replace(roll, claims=roll.claims[1:])
    heavy = msgspec.structs.replace(roll, claims=(twice, *roll.claims[1:]))
    dropped = lie(resigned(told, roll=short, roots=told.roots[1:], own=told.own[1:]), "dropped")
    assert dropped == {"the card names others than the vaults that signed for this sum"}
    assert lie(resigned(told, roll=heavy), "heavy") == {"a vault is weighed otherwise than once"}
    [other] = lie(resigned(told, sum_root=bytes(32)), "other")
    assert other.startswith(("sum", "opening", "shape"))
    card["rounds"][0]["groups"][0]["summed"] = card["rounds"][0]["groups"][0]["summed"][1:]
    (run / "lineage.json").write_text(json.dumps(card))
    assert "names others" in trainchecks.checked(run)[0].fault
    shutil.rmtree(run / "sums")
    assert all("no transcript" in it.fault for it in trainchecks.checked(run))
