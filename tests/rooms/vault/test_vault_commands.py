"""`clusterai vault …` as an owner types it, on a vault that is served and on one that isn't."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterai.cli import main as cli
from clusterai.cli.failure import Exit
from clusterai.protocol.ids import Digest, hex0x
from clusterai.protocol.vaults import Operation
from clusterai.vault.adapters import founding
from clusterai.vault.adapters.folder import write_aside
from clusterai.vault.core.policy import BadPolicy, Policy, Price, read_policy, write_policy
from clusterai.vault.core.schema import write_schema
from tests.rooms.vault.vaultbed import SCHEMA, SECRET, Bed, csv_file

ORDER = Digest(b"1" * 32)


class Typed:
    """Types commands, and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""

    def __call__(self, *words: object, code: int = Exit.OK) -> str:
        found = cli.run([str(word) for word in words])
        out, self.err = self._capsys.readouterr()
        assert found == code, (out, self.err)
        return out

    def json(self, *words: object) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    monkeypatch.setenv("CLUSTERAI_VAULT_KEYS", str(tmp_path / "keys"))
    return Typed(capsys)


@pytest.fixture
def served(bed: Bed) -> Iterator[Callable[[], None]]:
    """Ticks the vault as its host does, until the test ends."""
    end = threading.Event()

    def run() -> None:
        while not end.is_set():
            bed.vault.tick()
            end.wait(0.01)

    thread = threading.Thread(target=run)

    def begin() -> None:
        thread.start()

    yield begin
    end.set()
    if thread.is_alive():
        thread.join()


def test_a_vault_is_made_of_a_csv(typed: Typed, tmp_path: Path) -> None:
    """Card, Croissant, schema, mock and policy are there; no file of the vault holds a row."""
    data = csv_file(tmp_path / "data.csv")
    made = typed.json(
        "vault", "init", tmp_path / "v", "--from", data, "--unit", "patient", "--unit-rows", 2, "--free", "-y"
    )
    assert made["rows"] == 30
    folder = Path(made["folder"])
    assert {it.name for it in folder.iterdir()} >= {
        "README.md",
        "croissant.json",
        "mock.csv",
        "policy.toml",
        "schema.json",
        "vault.json",
    }
    assert not any(SECRET.encode() in it.read_bytes() for it in folder.rglob("*") if it.is_file())
    shown = typed.json("vault", "show", tmp_path / "v")
    assert (shown["rows"], shown["epsilon_total"], shown["served"]) == (30, 10.0, False)
    assert shown["schema"]["unit"] == "patient"
    assert "10 of" not in typed("vault", "show", tmp_path / "v")
    assert typed("vault", "mock", tmp_path / "v", "--rows", 2).count("\n") == 3


def test_a_folder_with_data_holds_its_vault_inside(typed: Typed, tmp_path: Path) -> None:
    """`vault init ./data` needs nothing else; all commands find it there."""
    (tmp_path / "data").mkdir()
    csv_file(tmp_path / "data" / "wards.csv")
    made = typed.json("vault", "init", tmp_path / "data", "--free", "-y")
    assert Path(made["folder"]) == tmp_path / "data" / ".vault"
    assert typed.json("vault", "show", tmp_path / "data")["name"] == "data"


def test_what_cant_be_made_a_vault_says_why(typed: Typed, tmp_path: Path) -> None:
    """No data, an unknown file, a cell that isn't what the schema declares; never the cell itself."""
    typed("vault", "init", tmp_path / "none", code=Exit.NOT_FOUND)
    assert "next: clusterai vault init" in typed.err
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    typed("vault", "init", tmp_path / "v", "--from", tmp_path / "x.parquet", "--free", "-y", code=Exit.FAILED)
    assert "duckdb" in typed.err
    (tmp_path / "s.json").write_bytes(write_schema(SCHEMA))
    bad = csv_file(tmp_path / "bad.csv")
    bad.write_text(bad.read_text().replace("\n9,", "\nsecret-nine,"))
    typed(
        "vault",
        "init",
        tmp_path / "v",
        "--from",
        bad,
        "--schema",
        tmp_path / "s.json",
        "--free",
        "-y",
        code=Exit.FAILED,
    )
    assert "row 19: column patient holds a value that is no int" in typed.err
    assert "secret-nine" not in typed.err
    assert not (tmp_path / "v" / "vault.json").exists()
    typed("vault", "show", tmp_path / "v", code=Exit.NOT_FOUND)


def test_a_locked_vault_is_served_with_its_password(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before anything is started, with the variable's name."""
    monkeypatch.setenv("CLUSTERAI_KEY_PASSWORD", "seven little words")
    typed("vault", "init", tmp_path / "v", "--from", csv_file(tmp_path / "data.csv"), "--free", "-y")
    monkeypatch.delenv("CLUSTERAI_KEY_PASSWORD")
    for command in (("up", "--vault"), ("vault", "serve")):
        typed(*command, tmp_path / "v", "--data", tmp_path / "net", code=Exit.FAILED)
        assert "it is encrypted" in typed.err
        assert "CLUSTERAI_KEY_PASSWORD" in typed.err
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize("at", ["schema.json", "vault.json"])
def test_a_vault_that_was_killed_while_it_was_made_goes_on(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Under the same key, at the same place: neither a key nor a piece is left behind."""
    there = (tmp_path / "there").as_uri()
    words = (
        "vault",
        "init",
        tmp_path / "v",
        "--from",
        csv_file(tmp_path / "data.csv"),
        "--free",
        "-y",
        "--store",
        there,
    )

    def killed(path: Path, data: bytes) -> None:
        if path.name == at:
            raise KeyboardInterrupt
        write_aside(path, data)

    monkeypatch.setattr(founding, "write_aside", killed)
    typed(*words, code=Exit.INTERRUPTED)
    assert not (tmp_path / "v" / "vault.json").exists()
    monkeypatch.undo()
    monkeypatch.setenv("CLUSTERAI_VAULT_KEYS", str(tmp_path / "keys"))
    assert typed.json(*words)["rows"] == 30
    assert len(list((tmp_path / "keys").iterdir())) == 1
    [place] = (tmp_path / "there").iterdir()
    assert len([it for it in place.rglob("*") if it.is_file()]) == 1
    assert not (tmp_path / "v" / founding.BEGUN).exists()


def test_nothing_is_made_by_a_dry_run(typed: Typed, tmp_path: Path) -> None:
    """The schema is printed, to be corrected and given back."""
    data = csv_file(tmp_path / "data.csv")
    found = json.loads(typed("vault", "init", tmp_path / "v", "--from", data, "--dry-run", "--json"))
    assert not (tmp_path / "v").exists()
    (tmp_path / "s.json").write_text(json.dumps(found["schema"]))
    assert (
        typed.json(
            "vault", "init", tmp_path / "v", "--from", data, "--schema", tmp_path / "s.json", "--free", "-y"
        )["rows"]
        == 30
    )


def test_an_owner_decides(typed: Typed, bed: Bed, served: Callable[[], None]) -> None:
    """Inbox, program, approve, uses, revoke, while the vault is served."""
    first = bed.ask(operation=Operation.CODE, code=b"print('\x1b[2Jcount')\n", purpose="to count [bold]beds")
    second = bed.ask()
    served()
    folder = bed.folder.root
    listed = typed.json("vault", "inbox", folder)["requests"]
    assert [(it["state"], it["operation"]) for it in listed] == [("asked", "code"), ("asked", "query")]
    assert "purpose  to count [bold]beds" in typed("vault", "inbox", folder)
    assert typed("vault", "inbox", folder, "--code", hex0x(first.request)[:10]) == "print('\\x1b[2Jcount')\n"
    assert typed.json("vault", "approve", folder, first.request.hex()[:8], "-y")["state"] in (
        "approved",
        "granted",
    )
    assert (
        typed("vault", "deny", folder, second.request.hex()[:8], "--note", "say more", "--yes") == "denied\n"
    )
    typed("vault", "approve", folder, second.request.hex()[:8], "-y", code=Exit.FAILED)
    assert "this request is denied" in typed.err
    grant = bed.vault.entries()[0].grant
    assert grant is not None
    bed.vault.spend(grant, ORDER, 250_000)
    bed.vault.used(ORDER, ORDER)
    [use] = typed.json("vault", "uses", folder)["uses"]
    assert (use["index"], use["epsilon"], use["price_wei"]) == (0, 0.25, 250_050)
    assert "ε 0.25 of 5 spent" in typed("vault", "uses", folder)
    typed("vault", "revoke", folder, grant.hex()[:8], "--reason", "nothing", "-y", code=Exit.USAGE)
    assert typed("vault", "revoke", folder, grant.hex()[:8], "--reason", "terms", "-y") == "revoked\n"
    assert typed.json("vault", "inbox", folder, "--all")["requests"][0]["note"] == "terms"
    typed("vault", "approve", folder, "ffff", "-y", code=Exit.NOT_FOUND)


def test_a_command_waits_for_who_serves_the_vault(typed: Typed, bed: Bed) -> None:
    """Left while nobody did, it is carried out at the first tick, once."""
    entry = bed.ask()
    bed.vault.close()
    assert typed.json("vault", "approve", bed.folder.root, entry.request.hex(), "-y")["state"] == "left"
    bed.open()
    assert bed.vault.entries()[0].state == "asked"
    bed.vault.tick()
    assert bed.vault.entries()[0].state == "granted"
    bed.vault.tick()
    assert list(bed.folder.desk.glob("*.json")) == []


def test_an_edited_policy_holds_from_the_next_second_on(typed: Typed, bed: Bed) -> None:
    """One that can't be read changes nothing, and `show` says so."""
    bed.set_policy(Policy(operations=(Operation.QUERY,), grant_epsilon_micro=7))
    bed.vault.tick()
    assert bed.vault.policy.grant_epsilon_micro == 7
    bed.folder.policy_file.write_text("operations = [")
    bed.vault.tick()
    assert bed.vault.policy.grant_epsilon_micro == 7
    typed("vault", "show", bed.folder.root, code=Exit.UNTRUE)


def test_a_policys_file_says_what_the_policy_says() -> None:
    """Written and read again it is the same: tens and hundreds too."""
    own = (Price(Operation.QUERY, 5, 7), Price(Operation.TRAINING, use_wei=2 * 10**9))
    for it in (
        Policy(),
        Policy(total_epsilon_micro=100_000_000, use_wei=3 * 10**9, auto_operations=(1,)),
        Policy(prices=own, use_wei=1, cohort_owners=5, cohort_stake_wei=10**9),
    ):
        assert read_policy(write_policy(it)) == it


def test_each_operation_costs_what_its_owner_says() -> None:
    """Those without a price of their own cost the usual one; programs cost what queries do; what has no order has no price."""
    policy = Policy(
        operations=(Operation.QUERY, Operation.CODE, Operation.JOINT, Operation.TRAINING, Operation.COPY),
        use_wei=1,
        copy_wei=9,
        prices=(Price(Operation.QUERY, 5, 7), Price(Operation.TRAINING, use_wei=20)),
    )
    policy.check()
    told = [policy.price_wei(it, 2_001) for it in Operation]
    assert told == [7 + 15, 7 + 15, 7 + 15, 20, 9, 1]
    assert [policy.offered_wei(it) for it in ("query", "training", "joint", "vault")] == [
        (5, 7),
        (0, 20),
        (0, 1),
        (0, 1),
    ]
    for wrong in (
        "[price.code]\nuse = 1",
        "[price.copy]\nuse = 1",
        "[price.query]\nfee = 1",
        "[price]\nquery = 1",
    ):
        with pytest.raises(BadPolicy):
            read_policy(wrong.encode())


def test_a_vault_isnt_free_by_forgetting(typed: Typed, tmp_path: Path) -> None:
    """Its owner names a price, or says that it is free; not both, and not neither."""
    data = csv_file(tmp_path / "rows.csv")
    words = ("vault", "init", tmp_path / "v", "--from", data, "-y")
    typed(*words, code=Exit.USAGE)
    typed(*words, "--free", "--price", "1", code=Exit.USAGE)
    typed(*words, "--price", "lots", code=Exit.USAGE)
    typed(*words, "--price", "2", "--epsilon-price", "0.5")
    policy = read_policy((tmp_path / "v" / "policy.toml").read_bytes())
    assert policy.price_wei(Operation.QUERY, 1_000_000) == 25 * 10**8


def test_two_processes_dont_serve_one_vault(bed: Bed) -> None:
    """The second is told so."""
    with pytest.raises(ValueError, match="another process serves"):
        bed.open()
