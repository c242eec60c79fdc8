"""`clusterai train check`: what it says and returns. A server that dropped or weighed a vault falsely is told by what it signed."""

import json
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.cli.failure import Exit
from clusterai.cli.main import run
from clusterai.protocol.canonical import decode, encode
from clusterai.vault.core.secagg.messages import Claim
from clusterai.vault.core.secagg.proof import MAX_PROOF_BYTES, Proof
from clusterai.vault.core.secagg.transcript import Transcript, transcript_digest
from tests.rooms.training.studies import ME, close_vaults
from tests.rooms.training.test_groups import grouped, trained

SERVER = "0x" + ME.address.hex()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """One round of six vaults in two groups."""
    folder = tmp_path_factory.mktemp("checked")
    trained(grouped(folder, 6), folder / "run", 1, [])
    yield folder / "run"
    close_vaults()


@pytest.fixture
def mine(honest: Path, tmp_path: Path) -> Path:
    shutil.copytree(honest, tmp_path / "run")
    return tmp_path / "run"


def first(folder: Path) -> tuple[Path, Proof]:
    place = min((folder / "sums").iterdir())
    return place, decode(place.read_bytes(), Proof, MAX_PROOF_BYTES)


def resigned(told: Transcript, **changes: Any) -> Transcript:
    """A lie that the server signs."""
    false = msgspec.structs.replace(told, **changes)
    return msgspec.structs.replace(false, signature=ME.key.sign(transcript_digest(false)))


def lie(folder: Path, transcript: Transcript) -> None:
    """In place of the first sum's; the card names it."""
    place, proof = first(folder)
    place.write_bytes(encode(Proof(transcript, proof.openings)))
    before, now = (transcript_digest(it).hex() for it in (proof.transcript, transcript))
    card = (folder / "lineage.json").read_text()
    (folder / "lineage.json").write_text(card.replace(before, now))


def recarded(folder: Path, change: Callable[[Any], object]) -> None:
    card = json.loads((folder / "lineage.json").read_text())
    change(card)
    (folder / "lineage.json").write_text(json.dumps(card))


def members(folder: Path) -> list[str]:
    """Of the first sum, by name, in the order of its claims."""
    names = {it["member"]: it["name"] for it in json.loads((folder / "lineage.json").read_text())["sources"]}
    return [names["0x" + who.hex()] for who in first(folder)[1].transcript.weights]


def said(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run(["train", "check", str(folder), *words])
    out, errors = capsys.readouterr()
    return code, out, " ".join(errors.split())


def test_an_honest_run_is_what_its_card_says(honest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0; a row for each sum with who is in it, or the same as JSON."""
    code, out, errors = said(honest, capsys)
    assert (code, errors) == (Exit.OK, "4 sums are what the card says")
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["round", "group", "vaults", "found"]
    assert [(row[0], row[1], row[3]) for row in rows[1:]] == [
        ("0", "0", "true"),
        ("0", "1", "true"),
        ("1", "0", "true"),
        ("1", "1", "true"),
    ]
    code, out, errors = said(honest, capsys, "--json")
    told = json.loads(out)
    assert (code, errors, told["named"]) == (Exit.OK, "", [])
    assert [(it["fault"], it["signer"]) for it in told["sums"]] == [("", SERVER)] * 4
    assert sorted(told["sums"][0]["vaults"] + told["sums"][1]["vaults"]) == [f"v{at}" for at in range(6)]


@pytest.mark.parametrize("how", ["drops", "weighs", "other sum"])
def test_a_server_that_drops_or_weighs_vaults_falsely_is_told_by_what_it_signed(
    mine: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """Exit code 6, the vault that it was done to, and the one whose signature is under it; as JSON too."""
    told, names = first(mine)[1].transcript, members(mine)
    one, *others = told.roll.claims
    if how == "drops":
        short = msgspec.structs.replace(told.roll, claims=tuple(others))
        false = resigned(told, roll=short, roots=told.roots[1:], own=told.own[1:])
        why = f"the card names others than the vaults that signed for this sum; {names[0]} isn't in it"
    elif how == "weighs":
        twice = Claim(one.member, one.commitment, 2, one.signature)
        false = resigned(told, roll=msgspec.structs.replace(told.roll, claims=(twice, *others)))
        why = f"{names[0]} is weighed 2 times, not once"
    else:
        false = resigned(told, sum_root=bytes(32))
        why = ""
    lie(mine, false)
    code, out, errors = said(mine, capsys)
    assert code == Exit.UNTRUE
    assert errors.startswith("error: 1 of 4 sums aren't what the card says why: round ")
    assert f"{why}; {SERVER} signed it next: keep the folder: it is the proof" in errors
    assert out.count("true") == 3
    code, out, again = said(mine, capsys, "--json")
    assert (code, again) == (Exit.UNTRUE, errors)
    [false_sum] = [it for it in json.loads(out)["sums"] if it["fault"]]
    assert false_sum["fault"] in errors
    assert false_sum["signer"] == SERVER


def test_what_nobody_signed_accuses_nobody(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 6 all the same: the card isn't true. A name is only under what was signed."""
    lie(mine, msgspec.structs.replace(first(mine)[1].transcript, sum_root=bytes(32)))
    code, _, errors = said(mine, capsys)
    assert code == Exit.UNTRUE
    assert (
        "unsigned: the server did not sign this; nobody's signature is under it next: ask whoever" in errors
    )
    assert SERVER not in errors


def test_a_false_card_is_told(mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One vault less in it, one more, one twice in a round, and a transcript that is gone."""

    def found(name: str, change: Callable[[Any], None]) -> str:
        folder = tmp_path / name
        shutil.copytree(mine, folder)
        recarded(folder, change)
        code, _, errors = said(folder, capsys)
        assert code == Exit.UNTRUE
        return errors

    def less(card: Any) -> None:
        card["rounds"][0]["groups"][0]["summed"].pop()

    def more(card: Any) -> None:
        card["rounds"][0]["groups"][0]["summed"].append("0x" + "ab" * 32)

    def twice(card: Any) -> None:
        card["rounds"][0]["groups"][1] = card["rounds"][0]["groups"][0]

    def lost(card: Any) -> None:
        card["rounds"][1]["groups"][0]["transcript"] = "0x" + "ab" * 32

    assert "names others" in found("less", less)
    assert "names others" in found("more", more)
    assert "error: 2 of 4" in (counted := found("twice", twice))
    assert "is counted twice in this round" in counted
    assert "no transcript of it is here" in found("lost", lost)


def test_a_hostile_folder_is_told_and_breaks_nothing(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A roll of members that there aren't, of a group that there isn't."""
    told = first(mine)[1].transcript
    stranger = msgspec.structs.replace(told.roll.claims[0], member=4000)
    roll = msgspec.structs.replace(told.roll, claims=(stranger, *told.roll.claims[1:]))
    for false in (
        resigned(told, roll=roll),
        resigned(told, spec=msgspec.structs.replace(told.spec, group=9)),
    ):
        lie(mine, false)
        code, _, errors = said(mine, capsys)
        assert code == Exit.UNTRUE
        assert "its roll names members that this sum hasn't" in errors


def test_a_run_that_cannot_be_checked_says_what_is_missing(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither 0 nor 6, nothing on stdout, and the cure."""
    code, out, errors = said(tmp_path / "nowhere", capsys, "--json")
    assert (code, out) == (Exit.NOT_FOUND, "")
    assert "lineage.json can't be read" in errors
    assert "next: ask whoever trained" in errors
    shutil.rmtree(mine / "sums")
    code, out, errors = said(mine, capsys)
    assert (code, out) == (Exit.NOT_FOUND, "")
    assert "holds no transcript next: ask whoever trained" in errors
    recarded(mine, lambda card: card.update(rounds=[]))
    code, out, errors = said(mine, capsys)
    assert (code, out) == (Exit.FAILED, "")
    assert "no sum yet" in errors
    recarded(mine, lambda card: card.update(sums="plain"))
    code, out, errors = said(mine, capsys)
    assert (code, out) == (Exit.FAILED, "")
    assert "next: nobody can check them" in errors
    (mine / "lineage.json").write_text("{}")
    code, out, errors = said(mine, capsys)
    assert (code, out) == (Exit.USAGE, "")
    assert "is no lineage card" in errors
