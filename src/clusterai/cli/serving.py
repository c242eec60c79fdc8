"""Serving a vault from this machine: the node that joined holds it too, beside what it serves already.

As `joining`: each step is asked for first and done only where it is missing, so that a command that was killed is finished by the next.
"""

import time
from pathlib import Path
from typing import Any

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.joining import LISTED_S, POLL_S, NodeFolder
from clusterai.cli.local.folder import write_atomically
from clusterai.protocol.ids import Address, Digest, hex0x
from clusterai.protocol.vaults import dataset_id
from clusterai.sdk import ApiError, Client
from clusterai.vault.adapters.folder import BadVault, NoVault, VaultFolder


def vault_in(folder: Path) -> VaultFolder:
    """
    Raises:
        Failure: there is none, or it can't be read.
    """
    try:
        return VaultFolder(folder)
    except NoVault as error:
        raise Failure(
            f"there is no vault in {folder}", "", f"clusterai vault init {folder} --from FILE", Exit.NOT_FOUND
        ) from error
    except BadVault as error:
        raise Failure("the vault can't be opened", str(error)) from None


def serves_already(place: NodeFolder) -> tuple[list[str], bool]:
    """(models, whether jobs) of the node's configuration; nothing where there is none."""
    held = _config(place)
    return [it["name"] for it in held.get("models", [])], held.get("jobs") is not None


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
