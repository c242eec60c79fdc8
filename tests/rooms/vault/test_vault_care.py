"""How a vault is kept: rows in memory don't outlive their process, keys in the clear are named, and a password closes them."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from clusterai.cli import main as cli
from clusterai.cli.explainvaults import reasons
from clusterai.cli.failure import Exit
from clusterai.ledger.adapters.network import BadKeyFile, is_keystore, lock_key
from clusterai.protocol.ids import Address, hex0x
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.protocol.vaults import Operation
from clusterai.sandbox.adapters import residue
from clusterai.sandbox.adapters.doctor import Row
from clusterai.vault.adapters import mounting
from clusterai.vault.adapters.doctor import examine
from clusterai.vault.adapters.folder import BadVault, VaultFolder
from clusterai.vault.adapters.hosting import Vault, open_vault
from clusterai.vault.core.policy import Policy, write_policy
from tests.system.running import until
from tests.system.vaulted import vault_at

MOUNTS = """
import asyncio, sys
from pathlib import Path
from clusterai.protocol.ids import Address
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.vault.adapters.hosting import open_vault

async def main():
    domain = network_domain(31415, Address(bytes(20)))
    vault = open_vault(Path(sys.argv[1]), Address(b"o" * 20), Key(b"k" * 32), domain)
    async with vault.mount() as folder:
        print(folder, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def states(rows: list[Row]) -> dict[str, str]:
    return {row.name: row.state for row in rows}


def test_rows_in_the_clear_dont_outlive_a_killed_vault(tmp_path: Path) -> None:
    """`kill -9` while a program has the data: it is gone from memory without anybody serving the vault again."""
    vault = vault_at(tmp_path)
    command = [sys.executable, "-c", MOUNTS, str(vault.root)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    assert "patient" in (folder / "data.csv").read_text()
    process.kill()
    process.communicate()
    until("the rows are gone", lambda: not folder.exists())


def left_by(pid: int) -> str:
    """How the names of its folders begin."""
    return f"clusterai-{pid}-{residue.namespace()}-"


def test_the_doctor_names_what_a_killed_process_left(tmp_path: Path) -> None:
    """A red row while it lies there; a key in the clear is a yellow one, a key that is gone a red one."""
    vault = vault_at(tmp_path)
    memory = tmp_path / "memory"
    memory.mkdir()
    found = states(examine(vault.root, memory))
    assert (found["left in memory"], found["master key"]) == ("green", "yellow")
    (memory / f"{left_by(2**22 + 1)}vault-x").mkdir()
    assert states(examine(vault.root, memory))["left in memory"] == "red"
    vault.key_file.unlink()
    assert states(examine(vault.root, memory))["master key"] == "red"
    assert states(examine(tmp_path / "nothing", memory)) == {"vault": "red"}


def test_a_vault_sweeps_nothing_of_another_living_process(tmp_path: Path) -> None:
    """Two networks on one machine serve a vault of the same owner and name: one that opens or closes takes away only its own and what belongs to nobody."""
    own, others = tmp_path / f"{mounting.prefix('x')}1", tmp_path / f"{left_by(1)}vault-x-1"
    orphan = tmp_path / f"{left_by(2**22 + 1)}vault-x-1"
    for folder in (own, others, orphan):
        folder.mkdir()
    mounting.sweep("x", tmp_path)
    assert list(tmp_path.iterdir()) == [others]


def test_a_key_is_put_under_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From then on the disk alone opens nothing; with the password it is the same key, and the doctor is content."""
    vault = vault_at(tmp_path)
    before, plain = vault.master(), vault.key_file.read_text().strip()
    monkeypatch.delenv("CLUSTERAI_KEY_PASSWORD", raising=False)
    assert cli.run(["vault", "lock", str(vault.root)]) == Exit.USAGE
    monkeypatch.setenv("CLUSTERAI_KEY_PASSWORD", "seven little words")
    assert cli.run(["vault", "lock", str(vault.root)]) == Exit.OK
    assert is_keystore(vault.key_file)
    assert plain not in vault.key_file.read_text()
    assert VaultFolder(vault.root).master() == before
    assert cli.run(["vault", "lock", str(vault.root)]) == Exit.FAILED
    capsys.readouterr()
    assert cli.run(["vault", "doctor", str(vault.root), "--json"]) in (Exit.OK, Exit.UNTRUE)
    told = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["state"] for row in told["rows"]}["master key"] == "green"
    monkeypatch.setenv("CLUSTERAI_KEY_PASSWORD", "another")
    with pytest.raises(BadVault):
        VaultFolder(vault.root).master()


def test_who_makes_a_vault_with_a_key_in_the_clear_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where `--quiet` leaves all else out; with a password there is nothing to tell."""
    (tmp_path / "beds.csv").write_text("patient,age\n" + "".join(f"{at},{at % 90}\n" for at in range(50)))

    def made(name: str) -> str:
        words = [
            "vault",
            "init",
            str(tmp_path / name),
            "--from",
            str(tmp_path / "beds.csv"),
            "--free",
            "-y",
            "-q",
        ]
        assert cli.run([*words, "--key", str(tmp_path / f"{name}.key")]) == Exit.OK
        return capsys.readouterr().err

    monkeypatch.delenv("CLUSTERAI_KEY_PASSWORD", raising=False)
    assert "in the clear" in made("plain")
    monkeypatch.setenv("CLUSTERAI_KEY_PASSWORD", "seven little words")
    assert "in the clear" not in made("locked")


def test_a_key_that_isnt_one_isnt_replaced(tmp_path: Path) -> None:
    """What can't be read stays as it is."""
    key = tmp_path / "key"
    with pytest.raises(BadKeyFile):
        lock_key(key, "words")
    key.write_text("nothing")
    key.chmod(0o600)
    with pytest.raises(BadKeyFile):
        lock_key(key, "words")
    assert key.read_text() == "nothing"


def test_a_new_version_takes_the_olds_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another snapshot under the same name, only while nobody serves it; what isn't of the schema leaves all as it was."""
    vault = vault_at(tmp_path, rows=40)
    rows = (tmp_path / "hearts.csv").read_text()
    newer, wrong = tmp_path / "newer.csv", tmp_path / "wrong.csv"
    newer.write_text(rows + "100,50,east\n")
    wrong.write_text(rows + "101,fifty,east\n")

    def typed(*words: str) -> int:
        return cli.run(["vault", "replace", str(vault.root), "-y", *words])

    with vault.serve():
        assert typed("--from", str(newer)) == Exit.BUSY
    assert typed("--from", str(wrong)) == Exit.FAILED
    assert typed("--from", str(tmp_path / "none.csv")) != Exit.OK
    capsys.readouterr()
    assert typed("--from", str(newer), "--json") == Exit.OK
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 41
    assert told["snapshot"] != told["before"]
    with opened(vault) as served:
        assert served.rows == 41
        assert served.columns(["age"])["age"].tolist()[-1] == 50
        assert hex0x(served.snapshot) == told["snapshot"]


@contextlib.contextmanager
def opened(vault: VaultFolder) -> Generator[Vault]:
    served = open_vault(
        vault.root, Address(b"o" * 20), Key(b"k" * 32), network_domain(31415, Address(bytes(20)))
    )
    try:
        yield served
    finally:
        served.close()


def test_why_few_may_ask_is_explained(tmp_path: Path) -> None:
    """Who serves it, who may ask, what waits for its owner, and what it costs; a vault that can't be opened stops."""
    vault = vault_at(tmp_path)
    states_of = {it.found: it.state for it in reasons(vault.root)}
    assert states_of["nobody serves it"] == "stops"
    with vault.serve():
        served = [it.state for it in reasons(vault.root)]
        assert served == ["good"]
    narrow = Policy(operations=(Operation.QUERY, Operation.TRAINING), only=(Address(b"a" * 20),))
    vault.policy_file.write_bytes(write_policy(narrow))
    told = [it.found for it in reasons(vault.root) if it.state == "limits"]
    assert told == ["1 requester(s) may ask, nobody else", "each request for query, training waits for you"]
    vault.key_file.unlink()
    assert [it.state for it in reasons(vault.root)] == ["stops"]
