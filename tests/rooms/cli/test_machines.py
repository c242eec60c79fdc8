"""An owner's machines: their accounts come from its key alone, their cards say whose they are, their money comes back."""

import hashlib
import hmac
import stat
from pathlib import Path

import msgspec
import pytest

from clusterai.cli import machines
from clusterai.cli.failure import Failure
from clusterai.cli.joining import NodeFolder, kept_apart, owner_key
from clusterai.cli.machines import (
    Machine,
    Machines,
    Owner,
    belonging,
    collecting,
    declare,
    declared,
    states,
    withdrawn,
)
from clusterai.ledger.adapters.derived import MOST_MACHINES, machine_key
from clusterai.ledger.adapters.network import Network
from clusterai.ledger.core import calls
from clusterai.ledger.core.deploy import Addresses
from clusterai.ledger.core.rules import LOCAL
from clusterai.protocol.belonging import decode_belonging, owner_of
from clusterai.protocol.ids import Address, Digest, checksummed, hex0x
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.sdk.shapes import Node

OWNER = Key(b"\x05" * 32)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
NETWORK = Network(
    chain_id=31415,
    rpc_urls=("http://127.0.0.1:1",),
    contracts=Addresses(
        **{name: Address(bytes([at]) * 20) for at, name in enumerate(Addresses.__struct_fields__)}
    ),
    genesis=Digest(bytes(32)),
    rules=LOCAL,
)


def by_hand(seed: bytes, *path: int) -> bytes:
    """BIP-32 for hardened steps, as its text has it."""
    key, chain = (whole := hmac.digest(b"Bitcoin seed", seed, hashlib.sha512))[:32], whole[32:]
    for step in path:
        whole = hmac.digest(chain, b"\0" + key + (2**31 + step).to_bytes(4), hashlib.sha512)
        key, chain = ((int.from_bytes(whole[:32]) + int.from_bytes(key)) % ORDER).to_bytes(32), whole[32:]
    return key


def test_accounts_are_derived_as_wallets_do() -> None:
    """The first is the owner itself; the others are BIP-32's, all different, the same each time."""
    seed = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
    # Test vector 1 of BIP-32, so that the lines above are BIP-32.
    assert by_hand(seed, 0).hex() == "edb2e14f9ee77d26dd93b4ecede8d16ed408ce149b6cd80b0715a2d911a0afea"
    assert machine_key(OWNER, 1) is OWNER
    for number in (2, 3, 7, MOST_MACHINES):
        assert machine_key(OWNER, number).secret() == by_hand(OWNER.secret(), 44, 60, number, 0, 0)
    assert len({machine_key(OWNER, number).address for number in range(1, 40)}) == 39


def test_a_machine_says_whose_it_is(tmp_path: Path) -> None:
    """Beside its card lies what both keys signed; it holds on this network, for a year."""
    account = machine_key(OWNER, 2)
    folder = NodeFolder(tmp_path)
    declare(folder, OWNER, account, NETWORK)
    domain = network_domain(NETWORK.chain_id, NETWORK.contracts.registry)
    said = decode_belonging((tmp_path / "state" / "belonging.bin").read_bytes())
    assert owner_of(said, account.address, domain, said.issued_s) == OWNER.address
    assert said.expires_s - said.issued_s == 365 * 86_400
    other = network_domain(NETWORK.chain_id + 1, NETWORK.contracts.registry)
    assert owner_of(said, account.address, other, said.issued_s) is None
    assert decode_belonging(belonging(OWNER, account, NETWORK, 1_000)).issued_s == 1_000


def test_it_is_said_anew_and_taken_back(tmp_path: Path) -> None:
    """By the owner's key, which finds out which of its machines this is; withdrawn, the card says nothing of it, however often."""
    account = machine_key(OWNER, 3)
    folder = NodeFolder(tmp_path)
    (tmp_path / "state").mkdir()
    file = tmp_path / "state" / "belonging.bin"
    file.write_bytes(belonging(OWNER, account, NETWORK, 1_000))
    assert declared(folder, account.address, Owner(OWNER, NETWORK)) == 3
    said = decode_belonging(file.read_bytes())
    domain = network_domain(NETWORK.chain_id, NETWORK.contracts.registry)
    assert owner_of(said, account.address, domain, said.issued_s) == OWNER.address
    assert said.issued_s > 1_000
    assert withdrawn(folder)
    assert not file.exists()
    assert not withdrawn(folder)


@pytest.mark.parametrize("account", [Key(b"\x09" * 32), OWNER])
def test_a_stranger_is_no_machine_of_an_owner(
    tmp_path: Path, account: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the owner's own account: nothing is written."""
    monkeypatch.setattr(machines, "MOST_MACHINES", 5)
    with pytest.raises(Failure, match="is no machine of"):
        declared(NodeFolder(tmp_path), account.address, Owner(OWNER, NETWORK))
    assert not (tmp_path / "state").exists()


def machine(number: int, **changes: int | bool) -> Machine:
    account = checksummed(machine_key(OWNER, number).address)
    return msgspec.structs.replace(Machine(number, account, 100, 0, 0, 0, False), **changes)


def mine(*some: Machine) -> Machines:
    return Machines(checksummed(OWNER.address), list(some), time_s=1_000)


def test_what_machines_hold_comes_to_their_owner() -> None:
    """Each account's by its own key; stake that still unbonds stays, and the owner pays nothing to itself."""
    found = mine(
        machine(1, free_wei=7, unbonding_wei=3, ready_s=1_000),
        machine(2, free_wei=5),
        machine(3, unbonding_wei=20, ready_s=1_001),
        machine(4, unbonding_wei=30, ready_s=999, free_wei=1),
    )
    plan = collecting(OWNER, found)
    assert [(key.address, call) for key, call in plan.calls] == [
        (OWNER.address, calls.Withdraw()),
        (machine_key(OWNER, 2).address, calls.Transfer(OWNER.address, 5)),
        (machine_key(OWNER, 4).address, calls.Withdraw()),
        (machine_key(OWNER, 4).address, calls.Transfer(OWNER.address, 31)),
    ]
    assert plan.amount_wei == 3 + 5 + 31
    assert len(plan.says) == len(plan.calls)


def test_a_machine_that_leaves_takes_out_its_stake() -> None:
    """That one's alone; none that isn't there, was convicted, or has left."""
    found = mine(
        machine(2), machine(3, unbonding_wei=4, ready_s=1), machine(4, barred=True), machine(5, stake_wei=0)
    )
    plan = collecting(OWNER, found, leave=3)
    # A further unbonding begins the delay anew for all of it: nothing can be withdrawn beside it.
    assert plan.calls == ((plan.calls[0][0], calls.Unbond(100)),)
    assert plan.calls[0][0].address == machine_key(OWNER, 3).address
    for number in (1, 4, 5, 6):
        with pytest.raises(Failure):
            collecting(OWNER, found, leave=number)


def test_a_gateway_says_how_each_stands() -> None:
    """Those that it doesn't know are said to be unknown there."""
    found = mine(machine(1), machine(2))
    ready = Node(provider=found.machines[1].account, stake_wei=1, barred=False, linked=True, state="ready")
    assert states(found, [ready]) == {1: "unknown to this gateway", 2: "ready"}


def test_a_folder_is_one_machines(tmp_path: Path) -> None:
    """Another account isn't joined over it; and without its key no stranger's account is made in its place."""
    folder = NodeFolder(tmp_path)
    kept_apart(folder, OWNER.address)
    folder.config.write_text(f'{{"owner": "{hex0x(OWNER.address)}"}}')
    kept_apart(folder, OWNER.address)
    with pytest.raises(Failure, match="is the machine of"):
        kept_apart(folder, machine_key(OWNER, 2).address)
    with pytest.raises(Failure, match="isn't there"):
        owner_key(folder, None)
    assert not folder.owner.exists()
    folder.config.unlink()
    assert owner_key(folder, None).address
    assert stat.S_IMODE(folder.owner.stat().st_mode) == 0o600
