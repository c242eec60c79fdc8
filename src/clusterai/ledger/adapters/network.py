"""Which network this is, and who we are on it: the manifest `network.json`, and key files.

The manifest holds no secret: it is what one gives to somebody who wants to join. Addresses are hex there, as people
and other tools write them.
"""

import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from clusterai.ledger.core.deploy import Addresses
from clusterai.ledger.core.rules import Rules
from clusterai.protocol.ids import Address, BadId, Digest, address, checksummed, digest, hex0x
from clusterai.protocol.keccak import keccak
from clusterai.protocol.signing import Key
from clusterai.runtime.adapters.recursion import same_recursion_limit

if TYPE_CHECKING:
    from eth_account import Account

MAX_FILE_BYTES = 64 * 1024


class BadNetwork(ValueError):
    """The manifest can't be used: {path}: {why}. Copy network.json again from the network that you want to join."""


class BadKeyFile(ValueError):
    """The key file can't be used: {path}: {why}."""


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """Everything public that a participant must know.

    Args:
        rpc_urls: JSON-RPC addresses of the chain, the first is preferred.
        genesis: hash of block 0; tells a chain that was begun anew from the one that we knew.
        start_block: the contracts are there from this block on; followers begin behind it.
        confirmations: blocks above a transaction before its outcome counts; 0 on a chain that can't reorganise.
        rules: what the contracts were built with.
    """

    chain_id: int
    rpc_urls: tuple[str, ...]
    contracts: Addresses
    genesis: Digest
    rules: Rules
    start_block: int = 0
    confirmations: int = 0
    name: str = "local"


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The manifest as JSON."""

    version: Annotated[int, Meta(ge=1, le=1)] = 1
    name: Annotated[str, Meta(max_length=64)]
    chain_id: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    rpc_urls: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^https?://", max_length=512)], ...], Meta(min_length=1)
    ]
    contracts: dict[str, str]
    genesis: str
    rules: Rules
    start_block: Annotated[int, Meta(ge=0)] = 0
    confirmations: Annotated[int, Meta(ge=0, le=1000)] = 0


def load_network(path: Path) -> Network:
    """Read a manifest, strictly.

    Raises:
        BadNetwork: missing, too long, or anything in it is not as it must be.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise BadNetwork(f"{path}: longer than {MAX_FILE_BYTES} bytes")
        found = msgspec.json.decode(data, type=_File)
        return Network(
            chain_id=found.chain_id,
            rpc_urls=found.rpc_urls,
            contracts=_addresses(found.contracts),
            genesis=digest(found.genesis),
            rules=found.rules,
            start_block=found.start_block,
            confirmations=found.confirmations,
            name=found.name,
        )
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError, BadId) as error:
        raise BadNetwork(
            f"{path}: {error}; copy network.json again from the network you want to join"
        ) from error


def manifest_of(network: Network) -> bytes:
    """The manifest's text: what one gives to somebody who wants to join."""
    contracts = {name: checksummed(getattr(network.contracts, name)) for name in Addresses.__struct_fields__}
    file = _File(
        name=network.name,
        chain_id=network.chain_id,
        rpc_urls=network.rpc_urls,
        contracts=contracts,
        genesis=hex0x(network.genesis),
        rules=network.rules,
        start_block=network.start_block,
        confirmations=network.confirmations,
    )
    return msgspec.json.format(msgspec.json.encode(file)) + b"\n"


def network_digest(network: Network) -> Digest:
    """What pins a network: its chain, that chain's first block, and where its contracts are.

    keccak of "clusterai network", the chain's id in 32 bytes, the genesis, and the contracts' addresses in the order of
    their names. How the chain is reached isn't in it: an address that lies about the chain can stop a node, and can't
    make its signatures hold elsewhere.
    """
    contracts = sorted(Addresses.__struct_fields__)
    where = b"".join(getattr(network.contracts, name) for name in contracts)
    return Digest(keccak(b"clusterai network" + network.chain_id.to_bytes(32) + network.genesis + where))


def save_network(path: Path, network: Network) -> None:
    """Write a manifest; a reader sees the old one or the new one, whole."""
    _write(path, manifest_of(network), 0o644)


def _addresses(contracts: dict[str, str]) -> Addresses:
    if contracts.keys() != set(Addresses.__struct_fields__):
        raise msgspec.ValidationError(
            f"`contracts` must name exactly {', '.join(Addresses.__struct_fields__)}"
        )
    found: dict[str, Address] = {name: address(text) for name, text in contracts.items()}
    return Addresses(**found)


def load_key(path: Path, password: str | None = None) -> Key:
    """The key in a file of 64 hex digits, or in a keystore (version 3) opened with `password`.

    Raises:
        BadKeyFile: missing, readable by others, malformed, or the password is wrong or missing.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise BadKeyFile(f"{path}: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise BadKeyFile(f"{path}: others may read it: chmod 600 {path}")
    try:
        secret = _open_keystore(data, password) if data[:1] == b"{" else _plain(data)
        return Key(secret)
    except ValueError as error:
        # `from None`: a traceback must never carry key material along
        raise BadKeyFile(f"{path}: {error}") from None


def save_key(path: Path, key: Key, password: str | None = None) -> None:
    """Write a key for its owner alone: encrypted where there is a password, else as hex, for local networks.

    Raises:
        FileExistsError: there is one already: keys are never overwritten.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists: move it away first, a lost key can't be had again")
    if password is None:
        _write(path, key.secret().hex().encode() + b"\n", 0o600)
        return
    _write(path, _sealed_keystore(key, password), 0o600)


def is_keystore(path: Path) -> bool:
    """Whether the key in this file is under a password."""
    try:
        with path.open("rb") as file:
            return file.read(1) == b"{"
    except OSError:
        return False


def lock_key(path: Path, password: str) -> None:
    """Put the key of a file under a password, in its place. What a disk keeps of the plain file isn't overwritten.

    Raises:
        BadKeyFile: it can't be read, or is a keystore already.
    """
    if is_keystore(path):
        raise BadKeyFile(f"{path}: it is under a password already")
    key = load_key(path)
    _write(path, _sealed_keystore(key, password), 0o600)
    load_key(path, password)


def make_key(path: Path, password: str | None = None) -> Key:
    """Load the key at `path`, or make one there from the system's entropy."""
    if not path.exists():
        save_key(path, Key(secrets.token_bytes(32)), password)
    return load_key(path, password)


def _plain(data: bytes) -> bytes:
    text = data.decode("ascii", "replace").strip().removeprefix("0x")
    if len(text) != 64 or not all(digit in "0123456789abcdefABCDEF" for digit in text):
        raise ValueError("it must hold 64 hex digits, or a keystore of version 3")
    return bytes.fromhex(text)


def _sealed_keystore(key: Key, password: str) -> bytes:
    return msgspec.json.encode(_account().encrypt(key.secret(), password))


def _account() -> "type[Account]":
    """Half a second of imports that only keystores need."""
    with same_recursion_limit():
        from eth_account import Account
    return Account


def _open_keystore(data: bytes, password: str | None) -> bytes:
    if password is None:
        raise ValueError("it is encrypted: give its password")
    try:
        return bytes(_account().decrypt(msgspec.json.decode(data), password))
    except (KeyError, TypeError, AttributeError, msgspec.MsgspecError):
        raise ValueError("it is not a keystore of version 3") from None


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
