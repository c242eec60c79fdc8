"""What an owner should know of a vault before trusting it with data: its key, what lies in memory, its policy. Nothing is changed."""

import shutil
from pathlib import Path

from clusterai.ledger.adapters.network import is_keystore
from clusterai.sandbox.adapters import residue
from clusterai.sandbox.adapters.doctor import Row
from clusterai.sandbox.adapters.volume import MEMORY, swap_is_encrypted
from clusterai.vault.adapters.folder import BadVault, NoVault, VaultFolder
from clusterai.vault.adapters.storage import Damaged, Storage


def examine(root: Path, memory: Path = MEMORY) -> list[Row]:
    """Rows for the vault in a folder. `red`: it can't be served, or shows what it shouldn't."""
    try:
        folder = VaultFolder(root)
    except (NoVault, BadVault) as error:
        return [Row("vault", "red", str(error), "name the folder that clusterai vault init made")]
    pieces, size = _pieces(folder)
    rows = [_folder(folder), _key(folder), pieces, _policy(folder), _left(memory), _memory(size, memory)]
    state = "it is served now" if folder.is_served() else "nobody serves it now"
    return [Row("vault", "green", f"{folder.named.name} in {folder.root}; {state}"), *rows]


def _folder(folder: VaultFolder) -> Row:
    if folder.root.stat().st_mode & 0o077:
        return Row(
            "folder", "yellow", "others may look into it: commands lie there", f"chmod 700 {folder.root}"
        )
    return Row("folder", "green", "its owner's alone")


def _key(folder: VaultFolder) -> Row:
    place = folder.key_file
    if not place.is_file():
        return Row("master key", "red", f"{place} isn't there", "bring it back: without it the data is lost")
    beside = place.is_relative_to(folder.root)
    if not is_keystore(place):
        found = f"{place} is in the clear: who reads this disk reads the data"
        return Row(
            "master key", "yellow", found, f"CLUSTERAI_KEY_PASSWORD=… clusterai vault lock {folder.root}"
        )
    if beside:
        return Row("master key", "yellow", "under a password, in the vault's own folder", "keep it elsewhere")
    try:
        Storage(folder.store, folder.master(), folder.named.store).close()
    except (BadVault, ValueError) as error:
        return Row("master key", "red", str(error), "set CLUSTERAI_KEY_PASSWORD to its password")
    return Row("master key", "green", f"{place}, under a password")


def _pieces(folder: VaultFolder) -> tuple[Row, int]:
    """And how many bytes they have; 0 where nobody can tell."""
    where = folder.named.store or str(folder.store)
    try:
        storage = Storage(folder.store, folder.master(), folder.named.store)
    except (BadVault, ValueError):
        return Row("pieces", "yellow", f"in {where}; not looked at without the key", "see master key"), 0
    try:
        whole = storage.manifest
        if whole is None:
            cure = f"clusterai vault replace {folder.root} --from FILE"
            return Row("pieces", "red", "no data was put in", cure), 0
        size = sum(it.size for it in whole.pieces)
        storage.reach()
    except Damaged as error:
        return Row("pieces", "red", str(error), "bring them back"), 0
    except OSError as error:
        return Row("pieces", "red", str(error), "until then no use is answered, and none is charged"), 0
    finally:
        storage.close()
    return Row("pieces", "green", f"{len(whole.pieces)} in {where}, {size >> 20} MiB encrypted"), size


def _policy(folder: VaultFolder) -> Row:
    try:
        policy = folder.policy()
    except BadVault as error:
        return Row("policy", "red", str(error), f"correct {folder.policy_file}")
    open_to_all = [it for it in policy.auto_operations if not policy.auto_only]
    if open_to_all:
        return Row(
            "policy", "yellow", "some operations are granted to anybody, without asking you", "[auto] only"
        )
    if policy.is_free:
        return Row("policy", "yellow", "nothing is asked for anything: it is used for free", "[price]")
    return Row("policy", "green", "nothing is granted to strangers without you")


def _left(memory: Path) -> Row:
    found = residue.left(memory)
    if found:
        names = ", ".join(it.name for it in found[:3])
        told = f"{len(found)} folder(s) of processes that were killed lie in the clear in {memory}: {names}"
        return Row("left in memory", "red", told, "clusterai vault doctor --sweep removes them")
    return Row("left in memory", "green", "nothing of processes that are gone")


def _memory(size: int, memory: Path) -> Row:
    if not memory.is_dir():
        return Row(
            "memory", "red", f"{memory} isn't there: programs can't be given the data", "mount a tmpfs there"
        )
    free = shutil.disk_usage(memory).free
    if free < 2 * size:
        told = f"{free >> 20} MiB are free in {memory}, and the data has {size >> 20} MiB encrypted"
        return Row("memory", "yellow", told, "more memory, or a larger tmpfs: programs get all rows at once")
    if swap_is_encrypted() is False:
        return Row(
            "memory", "yellow", "memory may be swapped to a disk in the clear", "swapoff -a, or encrypt swap"
        )
    return Row("memory", "green", "programs' data fits, and reaches no disk in the clear")
