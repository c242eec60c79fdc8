"""A vault whose policy wants texts anonymised: nothing goes round it."""

import asyncio
import io
import json
from pathlib import Path

import msgspec
import pytest

from clusterai.cli.failure import Exit
from clusterai.cli.main import run
from clusterai.protocol import canonical, copies
from clusterai.protocol.ids import ZERO_ADDRESS, Digest
from clusterai.protocol.vaults import Operation
from clusterai.vault.adapters import cleaning, opening
from clusterai.vault.adapters.anonymising import AnonymiserGone
from clusterai.vault.adapters.copying import Copies
from clusterai.vault.adapters.folder import BadVault
from clusterai.vault.adapters.founding import found_vault, replace_data
from clusterai.vault.adapters.importing import find
from clusterai.vault.adapters.storage import Storage
from clusterai.vault.core.cleaning import HANDS_OUT, left_standing, marked
from clusterai.vault.core.policy import BadPolicy, Policy, anonymising, read_policy, write_policy
from clusterai.vault.core.schema import BadSchema, Column, Schema
from clusterai.vault.core.terms import Denied
from scripts import install
from tests.rooms.vault.vaultbed import POLICY, SCHEMA, Bed, csv_file, rows

USUAL, STRICT = anonymising(POLICY, "usual"), anonymising(POLICY, "strict")
MAYOR = "John Smith (john.smith@example.com) lay in bed nine"
ORDER = Digest(b"o" * 32)


@pytest.fixture(autouse=True)
def installed() -> None:
    found = install.peer(install.PEERS / "anonymise.txt", install.HOME / "peers" / "anonymise")
    assert found is not None, "it isn't installed as scripts/peers/anonymise.txt wants it: make install-peers"


def named(count: int = 12) -> list[dict[str, object]]:
    return [{**row, "note": MAYOR if at == 9 else row["note"]} for at, row in enumerate(rows(count))]


def put_again(bed: Bed, path: Path) -> None:
    """By the owner, while nobody serves the vault."""
    bed.close()
    replace_data(bed.folder, bed.folder.schema(), find(csv_file(path, named())))
    bed.open()


def test_a_policy_is_written_and_read_with_it() -> None:
    """Both options stand in the file; another word is refused."""
    assert read_policy(write_policy(STRICT)) == STRICT
    assert read_policy(b'[anonymise]\ntexts = "usual"\n').anonymise_texts == "usual"
    with pytest.raises(BadPolicy):
        read_policy(b'[anonymise]\ntexts = "a bit"\n')
    with pytest.raises(BadPolicy):
        anonymising(POLICY, "a bit")


def test_what_is_wanted_is_marked() -> None:
    """Texts alone, and as much as the schema or the policy asks for, whichever is more; people are never told apart by such a text."""
    [note] = [it for it in marked(SCHEMA, USUAL).columns if it.anonymised]
    assert (note.name, note.anonymised) == ("note", "usual")
    assert marked(marked(SCHEMA, STRICT), USUAL) == marked(SCHEMA, STRICT)
    assert left_standing(marked(SCHEMA, USUAL), STRICT) == ("note",)
    assert left_standing(SCHEMA, POLICY) == ()
    with pytest.raises(BadSchema, match="number them"):
        marked(msgspec.structs.replace(SCHEMA, unit="note"), USUAL)
    with pytest.raises(BadSchema, match="only texts"):
        Schema(columns=(Column(name="age", kind="int", anonymised="usual"),)).check()


def test_the_vault_holds_no_other_texts(tmp_path: Path) -> None:
    """What is put in is cleaned before it is encrypted: columns and mounts have no name in them, and the card says which column that is."""
    data = find(csv_file(tmp_path / "x.csv", named()))
    folder = found_vault(tmp_path / "v", "wards", tmp_path / "key", SCHEMA, data, USUAL)
    storage = Storage(folder.store, folder.master())
    texts = [text for piece in storage.pieces() for text in piece.columns["note"]]
    storage.close()
    assert texts[9] == "<PERSON> (<EMAIL>) lay in bed nine"
    assert texts[:2] == ["note 0", "note 1"]
    assert folder.schema().column("note").anonymised == "usual"


@pytest.mark.parametrize("operation", sorted(HANDS_OUT))
def test_texts_put_in_before_are_handed_to_nobody(bed: Bed, operation: Operation) -> None:
    """A policy that changes its mind: grants from before stop, none is asked for or given, and the owner is told; queries go on."""
    code = b"print(1)\n" if operation != Operation.COPY else b""
    named_code = canonical.content_digest(code) if code else Digest(bytes(32))
    before, waits = bed.grant(operation=operation), bed.ask(operation=operation, nonce=Digest(b"2" * 32))
    queries = bed.grant()
    bed.set_policy(USUAL)
    with pytest.raises(BadVault, match="note isn't"):
        bed.vault.tick()
    who = bed.identity.address
    for refused in (
        lambda: bed.vault.permit(before, who, operation, named_code),
        lambda: bed.vault.approve(waits.request),
        lambda: bed.ask(operation=operation, nonce=Digest(b"3" * 32)),
    ):
        with pytest.raises(Denied) as no:
            refused()
        assert no.value.code == "anonymise"
    assert bed.vault.permit(queries, who, Operation.QUERY, Digest(bytes(32)))


def test_put_in_once_more_it_is_handed_out(bed: Bed, tmp_path: Path) -> None:
    """A grant from before holds again; what a copy's buyer opens, checked against the listing's snapshot, has the cleaned texts."""
    grant = bed.grant(operation=Operation.COPY, uses=1, epsilon_micro=0)
    bed.set_policy(USUAL)
    put_again(bed, tmp_path / "again.csv")
    bed.vault.tick()
    key = copies.AskKey(grant)
    question = bed.identity.sealed(
        bed.vault.dataset, bed.vault.seal_to, bed.network, canonical.encode(key), bed.now_s
    )

    async def asked() -> bytes:
        return await Copies(bed.vault).answer(ZERO_ADDRESS, question.body)

    reply = bed.identity.opened(bed.vault.seal_to, asyncio.run(asked()), question.nonce)
    given = copies.decode_told(reply)
    assert isinstance(given, copies.KeyGiven)
    schema = opening.checked(given, bed.vault.snapshot)
    opening.write(given, schema, lambda it: bed.vault.stored(Digest(it)), tmp_path / "copy.csv")
    assert "Smith" not in (tmp_path / "copy.csv").read_text()
    assert "<PERSON> (<EMAIL>) lay" in (tmp_path / "copy.csv").read_text()


def test_an_output_is_cleaned_before_its_owner_reads_it(bed: Bed) -> None:
    """What is held is what is read and released; of JSON the strings, and how much was taken out stands beside it."""
    bed.set_policy(msgspec.structs.replace(POLICY, anonymise_outputs="usual"))
    bed.vault.tick()
    grant = bed.grant(operation=Operation.REVIEW, epsilon_micro=0)
    output = json.dumps({"n": 12, "who": [MAYOR], "ok": "mean"}).encode()
    findings = bed.vault.hold(grant, ORDER, output)
    [held] = bed.vault.review.outputs()
    assert json.loads(held.output) == {"n": 12, "who": ["<PERSON> (<EMAIL>) lay in bed nine"], "ok": "mean"}
    assert [it.detail for it in findings if it.code == "anonymised"] == ["taken out: 1 EMAIL, 1 PERSON"]
    bed.vault.review.release(ORDER)
    assert bed.vault.review.released(ORDER, bed.identity.address)[0] == held.output


def test_a_smuggled_row_is_found_before_it_is_cleaned(bed: Bed, tmp_path: Path) -> None:
    """A program that copies a row out is stopped, though cleaning would have made the copy another text."""
    put_again(bed, tmp_path / "again.csv")
    bed.set_policy(msgspec.structs.replace(POLICY, anonymise_outputs="strict"))
    bed.vault.tick()
    grant = bed.grant(operation=Operation.REVIEW, epsilon_micro=0)
    findings = bed.vault.hold(grant, ORDER, MAYOR.encode())
    assert {"rows", "anonymised"} <= {it.code for it in findings}
    with pytest.raises(Denied, match="rows"):
        bed.vault.review.release(ORDER)


@pytest.mark.parametrize("output", [b"\xff\xfe", b"[" * 1_200, b"12.5"])
def test_what_holds_nothing_stays_as_it_is(output: bytes) -> None:
    """Bytes that are no text, JSON too deep to read, and what has no personal data."""
    assert cleaning.cleaned_output(output, "usual") == (output, {})


def test_an_output_made_to_take_hours_is_given_up() -> None:
    """A program that leaves what patterns choke on holds the vault for a time that is bounded."""
    with pytest.raises(AnonymiserGone):
        cleaning.cleaned_output(b"[" * 100_000, "usual", seconds=0.5)


def test_without_an_anonymiser_nothing_is_put_in_or_held(tmp_path: Path) -> None:
    """It is said, and nothing goes on without it."""
    schema = marked(SCHEMA, USUAL)
    with pytest.raises(AnonymiserGone):
        list(cleaning.cleaned_rows(schema, [{"note": MAYOR}], tmp_path / "nowhere"))
    with pytest.raises(AnonymiserGone):
        cleaning.cleaned_output(MAYOR.encode(), "usual", tmp_path / "nowhere")


def test_the_owner_types_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`vault init --anonymise`, and where a policy wants more later, `vault show` says so until `vault replace`."""
    source = csv_file(tmp_path / "x.csv", named(30))
    monkeypatch.setenv("CLUSTERAI_VAULT_KEYS", str(tmp_path / "keys"))
    made = ["vault", "init", str(tmp_path / "v"), "--from", str(source), "--free", "--yes", "--json"]
    assert run([*made, "--anonymise", "much"]) == Exit.USAGE
    assert run([*made, "--anonymise", "usual"]) == Exit.OK
    capsys.readouterr()
    assert run(["vault", "show", str(tmp_path / "v"), "--json"]) == Exit.OK
    told = json.load(io.StringIO(capsys.readouterr().out))
    assert [it["anonymised"] for it in told["schema"]["columns"] if it["kind"] == "text"] == ["usual"]
    policy = tmp_path / "v" / "policy.toml"
    assert read_policy(policy.read_bytes()) == anonymising(Policy(), "usual")
    policy.write_bytes(write_policy(anonymising(Policy(), "strict")))
    assert run(["vault", "show", str(tmp_path / "v"), "--json"]) == Exit.UNTRUE
    assert "vault replace" in str(json.load(io.StringIO(capsys.readouterr().out))["wrong"])
    assert run(["vault", "replace", str(tmp_path / "v"), "--from", str(source), "--yes"]) == Exit.OK
    assert run(["vault", "show", str(tmp_path / "v"), "--json"]) == Exit.OK
