"""Serving a vault from this machine: the node that joined holds it too, beside what it serves already.

As `joining`: each step is asked for first and done only where it is missing, so that a command that was killed is finished by the next.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec

from clusterai.cli import joining, keeping
from clusterai.cli.failure import Failure
from clusterai.cli.joining import LISTED_S, POLL_S, NodeFolder
from clusterai.cli.local.folder import DataFolder, write_atomically
from clusterai.protocol.ids import Address, Digest, checksummed, hex0x
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.protocol.money import show as money
from clusterai.protocol.vaults import Operation, dataset_id
from clusterai.sdk import ApiError, Client, shapes
from clusterai.vault.adapters.folder import BadVault, NoVault, VaultFolder
from clusterai.vault.core.policy import Policy


def vault_in(folder: Path) -> VaultFolder:
    """One that a node could serve.

    Raises:
        Failure: there is none, or it or its key can't be read.
    """
    vault = keeping.opened(folder)
    try:
        vault.master()
    except BadVault as error:
        keeping.unusable(error)
    return vault


class Plan(msgspec.Struct, frozen=True):
    """What serving it takes."""

    joiner: joining.Joiner
    told: shapes.Invitation
    steps: tuple[str, ...]


class Served(msgspec.Struct, frozen=True):
    """What came of it; `pid` is 0 where the node wasn't started."""

    provider: str
    dataset: str
    pid: int
    folder: str


def planned(
    client: Client,
    place: NodeFolder,
    vault: VaultFolder,
    owner_key: Path | None,
    stake: float,
    data: DataFolder,
) -> Plan:
    """
    Raises:
        Failure: the node's folder is of another network, or the owner can't pay.
    """
    told, network, _ = joining.invited(client, place)
    owner = joining.owner_key(place, owner_key)
    purse = joining.faucet_of(data, network)
    joiner = asyncio.run(joining.examined(place, network, owner, round(stake * WEI_PER_TOKEN), purse))
    policy = vault.policy()
    prices = "; ".join(_price(policy, it) for it in policy.operations)
    steps = (*joiner.steps, f"serve {vault.named.name} from {vault.root}, for {prices}")
    return Plan(joiner, told, steps)


def _price(policy: Policy, operation: int) -> str:
    name = Operation(operation).name.lower()
    if operation == Operation.COPY:
        return f"{name} {money(policy.copy_wei)}"
    milli_wei, use_wei = policy.pair_wei(operation)
    if not milli_wei and not use_wei:
        return f"{name} for nothing"
    return f"{name} {money(use_wei)} a use and {money(1000 * milli_wei)} for each ε of 1"


def served(
    client: Client, place: NodeFolder, vault: VaultFolder, plan: Plan, *, start: bool = True
) -> Served:
    """Do it, and wait until the gateway lists the vault. A node that runs is restarted if the vault is new to it.

    Raises:
        Failure.
    """
    joiner = plan.joiner
    asyncio.run(joining.settled(joiner))
    before = _config(place)
    models, jobs = [it["name"] for it in before.get("models", [])], before.get("jobs") is not None
    joining.configured(place, joiner, plan.told, models, jobs, client.base_url)
    is_new = held(place, vault)
    owner = joiner.owner.address
    pid = place.running() or 0
    if start and (is_new or not pid):
        joining.stopped(place)
        process = joining.started(place)
        pid = process.pid
        joining.listed(client, place, joiner, process)
    dataset = listed(client, owner, vault) if start else dataset_id(owner, vault.named.name)
    return Served(checksummed(owner), hex0x(dataset), pid, str(place.root))


def held(place: NodeFolder, vault: VaultFolder) -> bool:
    """Put the vault into the node's configuration; whether that is new."""
    config = _config(place)
    vaults: list[dict[str, Any]] = config.get("vaults", [])
    if any(_root(it["folder"]) == vault.root for it in vaults):
        return False
    config["vaults"] = [*vaults, {"folder": str(vault.root)}]
    write_atomically(place.config, msgspec.json.format(msgspec.json.encode(config)) + b"\n")
    return True


def _root(folder: str) -> Path | None:
    """A vault may be named by its own folder, or by the one that its data lay in; None where it is gone."""
    try:
        return VaultFolder(Path(folder)).root
    except (NoVault, BadVault):
        return None


def _config(place: NodeFolder) -> dict[str, Any]:
    return msgspec.json.decode(place.config.read_bytes()) if place.config.exists() else {}


def listed(client: Client, owner: Address, vault: VaultFolder) -> Digest:
    """Wait until the gateway lists the vault; the data set's id.

    Raises:
        Failure: it takes too long.
    """
    dataset = dataset_id(owner, vault.named.name)
    ends_s = time.monotonic() + LISTED_S
    while time.monotonic() < ends_s:
        try:
            client.ask("GET", f"/v1/clusterai/data/{hex0x(dataset)}")
        except ApiError as error:
            if error.status != 404:
                raise
            time.sleep(POLL_S)
        else:
            return dataset
    raise Failure(
        f"the vault isn't listed after {LISTED_S:.0f} s",
        f"the gateway has no data set {hex0x(dataset)}",
        "read the node's log; `not_listed` in the gateway's says why",
    )
