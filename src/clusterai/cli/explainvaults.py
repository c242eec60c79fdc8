"""`clusterai node explain` of a vault: why nobody, or so few, may ask it; from its folder and its policy alone."""

from pathlib import Path
from typing import Literal

import msgspec

from clusterai.protocol.money import show as money
from clusterai.protocol.vaults import Operation
from clusterai.vault.adapters.folder import BadVault, NoVault, VaultFolder


class Reason(msgspec.Struct, frozen=True):
    """As `explaining.Finding`."""

    name: str
    state: Literal["stops", "limits", "good"]
    found: str
    cure: str = ""


def reasons(root: Path) -> list[Reason]:
    """Of the vault in a folder."""
    name = f"vault {root.name}"
    try:
        folder = VaultFolder(root)
        policy = folder.policy()
        folder.master()
    except (NoVault, BadVault) as error:
        return [Reason(name, "stops", str(error), f"clusterai vault doctor {root}")]
    name = f"vault {folder.named.name}"
    found: list[Reason] = []
    if not folder.is_served():
        found.append(
            Reason(name, "stops", "nobody serves it", f"clusterai vault serve {root}, or restart this node")
        )
    if policy.only:
        who = f"{len(policy.only)} requester(s) may ask, nobody else"
        found.append(Reason(name, "limits", who, f"`only` in {folder.policy_file}"))
    by_hand = [it for it in policy.operations if it not in policy.auto_operations]
    if by_hand:
        names = ", ".join(Operation(it).name.lower() for it in by_hand)
        found.append(
            Reason(name, "limits", f"each request for {names} waits for you", f"clusterai vault inbox {root}")
        )
    milli_wei, use_wei = policy.pair_wei(policy.operations[0])
    price = "for nothing" if policy.is_free else f"{money(use_wei)} a use, {money(1000 * milli_wei)} for ε 1"
    told = ", ".join(Operation(it).name.lower() for it in policy.operations)
    found.append(Reason(name, "good", f"offers {told}; {price}"))
    return found
