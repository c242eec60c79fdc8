"""The manifest and the key files: what is written is read again, and what is wrong is named."""

import json
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterai.ledger import artifacts
from clusterai.ledger.adapters.network import (
    BadKeyFile,
    BadNetwork,
    Network,
    load_key,
    load_network,
    make_key,
    network_digest,
    save_key,
    save_network,
)
from clusterai.ledger.core.deploy import local_plan
from clusterai.ledger.core.rules import LOCAL
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import Key

NETWORK = Network(
    chain_id=31415,
    rpc_urls=("http://127.0.0.1:8545",),
    contracts=local_plan(artifacts.load, Key(b"\x01" * 32).address).addresses,
    genesis=Digest(b"\x07" * 32),
    rules=LOCAL,
)
SECRET = bytes.fromhex("0f" * 32)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path):
    """Save, load: the same network; the file has checksummed addresses and no secret."""
    path = tmp_path / "network.json"
    save_network(path, NETWORK)
    assert load_network(path) == NETWORK
    assert (
        json.loads(path.read_text())["contracts"]["channels"] == "0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003"
    )


def test_a_digest_pins_chain_and_contracts_and_not_the_way_there():
    """Another id, first block or contract is another network; another address of the chain, or another name, isn't."""
    plain = network_digest(NETWORK)
    same = msgspec.structs.replace(NETWORK, rpc_urls=("http://elsewhere:1",), name="called otherwise")
    assert network_digest(same) == plain
    others = [
        msgspec.structs.replace(NETWORK, chain_id=NETWORK.chain_id + 1),
        msgspec.structs.replace(NETWORK, genesis=Digest(b"\x99" * 32)),
    ]
    for name in NETWORK.contracts.__struct_fields__:
        contracts = msgspec.structs.replace(NETWORK.contracts, **{name: Address(b"\x98" * 20)})
        others.append(msgspec.structs.replace(NETWORK, contracts=contracts))
    assert len({plain, *map(network_digest, others)}) == 1 + len(others)


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": 0},
        {"chain_id": "31415"},
        {"rpc_urls": []},
        {"rpc_urls": ["file:///etc/passwd"]},
        {"contracts": {}},
        {"genesis": "0x12"},
        {"surprise": 1},
        {"version": 2},
        {"rules": None},
        {"confirmations": -1},
    ],
)
def test_a_wrong_manifest_is_named(tmp_path: Path, change: dict[str, Any]):
    """Each field is checked, and unknown ones are refused."""
    path = tmp_path / "network.json"
    save_network(path, NETWORK)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadNetwork, match=r"network\.json"):
        load_network(path)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_no_manifest(data: bytes, tmp_path_factory: pytest.TempPathFactory):
    """Bytes that aren't a manifest give BadNetwork and nothing else."""
    path = tmp_path_factory.mktemp("fuzz") / "network.json"
    path.write_bytes(data)
    with pytest.raises(BadNetwork):
        load_network(path)


@pytest.mark.parametrize("password", [None, "correct horse"])
def test_a_key_is_read_as_it_was_written(tmp_path: Path, password: str | None):
    """Plain hex or keystore: the same key comes back; only its owner can read the file."""
    path = tmp_path / "hot.key"
    save_key(path, Key(SECRET), password)
    assert load_key(path, password).secret() == SECRET
    assert path.stat().st_mode & 0o777 == 0o600
    assert (SECRET.hex() in path.read_text()) == (password is None)
    with pytest.raises(FileExistsError):
        save_key(path, Key(b"\x02" * 32))


def test_a_key_is_made_once(tmp_path: Path):
    """The first call makes the file, later ones read it."""
    assert make_key(tmp_path / "keys/a.key").address == make_key(tmp_path / "keys/a.key").address
    assert make_key(tmp_path / "keys/b.key").address != make_key(tmp_path / "keys/a.key").address


@pytest.mark.parametrize(
    "content", ["", "zz" * 32, "0f" * 31, "00" * 32, "ff" * 32, "{}", '{"version":3}', "[1]"]
)
def test_a_bad_key_file_is_named(tmp_path: Path, content: str):
    """Malformed or impossible keys are refused, with a password or without."""
    path = tmp_path / "hot.key"
    path.write_text(content)
    path.chmod(0o600)
    for password in (None, "x"):
        with pytest.raises(BadKeyFile, match=r"hot\.key"):
            load_key(path, password)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path):
    """A file mode that gives the key away is an error with its cure."""
    path = tmp_path / "hot.key"
    save_key(path, Key(SECRET))
    path.chmod(0o644)
    with pytest.raises(BadKeyFile, match="chmod 600"):
        load_key(path)
    with pytest.raises(BadKeyFile, match="No such file"):
        load_key(tmp_path / "none.key")


def test_no_error_shows_the_key(tmp_path: Path):
    """Neither repr nor a traceback of a failed load carries the secret."""
    path = tmp_path / "hot.key"
    path.write_text(SECRET.hex() + "0")
    path.chmod(0o600)
    with pytest.raises(BadKeyFile) as caught:
        load_key(path)
    assert SECRET.hex()[:16] not in "".join(traceback.format_exception(caught.value))
    assert SECRET.hex()[:16] not in repr(Key(SECRET))


def test_a_key_under_a_password_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    """What reads keystores raises Python's limit of recursion, under which a stranger's nested JSON kills a daemon: it is put back."""
    save_key(tmp_path / "key.json", Key(bytes(31) + b"\x01"), "secret")
    daemon = (
        "import sys\nfrom pathlib import Path\nimport msgspec\n"
        "from clusterai.ledger.adapters.network import load_key\n"
        f"load_key(Path({str(tmp_path / 'key.json')!r}), 'secret')\n"
        "assert 'eth_keyfile' in sys.modules\n"
        "try:\n    msgspec.json.decode(b'[' * 1_000_000)\n"
        "except RecursionError:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", daemon], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "refused"), done.stderr
