"""Attestations as files: made by who attests, checked and put beside the card by whom they are about."""

import contextlib
import time
from pathlib import Path

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.local.folder import write_atomically
from clusterai.ledger.adapters.network import BadKeyFile, BadNetwork, Network, load_key, load_network
from clusterai.node.adapters.carding import ATTESTATIONS, BELONGING
from clusterai.node.config import Config
from clusterai.protocol import canonical
from clusterai.protocol.belonging import decode_belonging, owner_of
from clusterai.protocol.canonical import Malformed, content_digest
from clusterai.protocol.cards import MOST_ATTESTATIONS, Attestation
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, checksummed
from clusterai.protocol.signing import signed_by
from clusterai.protocol.statements import network_domain

MOST_DOCUMENT_BYTES = 64 << 20
MOST_FILE_BYTES = 1_024
DAY_S = 86_400


def attest(
    network: Path,
    key: Path,
    password: str | None,
    subject: Address,
    label: str,
    days: int,
    document: Path | None,
) -> bytes:
    """A signed attestation, as a file holds it.

    Args:
        document: what says so at length; its digest is signed with it.

    Raises:
        Failure: a file can't be used, or the label is none.
    """
    try:
        signer, domain = load_key(key, password), _domain(load_network(network))
    except (BadKeyFile, BadNetwork) as error:
        raise Failure("that file can't be used", str(error), code=Exit.USAGE) from None
    now_s = int(time.time())
    said = bytes(32) if document is None else content_digest(_read(document, MOST_DOCUMENT_BYTES))
    blank = Attestation(signer.address, subject, label, said, now_s, now_s + days * DAY_S, bytes(65))
    try:
        # As a stranger will read it: the label is short and plain, or it is none.
        canonical.decode(canonical.encode(blank), Attestation, MOST_FILE_BYTES)
    except Malformed as error:
        raise Failure(
            f"{label[:40]!r} is no label", str(error), "up to 32 of a-z, 0-9, dot and dash", Exit.USAGE
        ) from None
    signature = signer.sign(blank.signing_digest(domain))
    return canonical.encode(msgspec.structs.replace(blank, signature=signature))


def certify(config: Config, file: Path) -> tuple[Attestation, Path]:
    """Put an attestation of this node's account, or of the owner that it belongs to, beside its card.

    Raises:
        Failure: it isn't one, of somebody else, not signed, over, or one too many.
    """
    data = _read(file, MOST_FILE_BYTES)
    try:
        found = canonical.decode(data, Attestation, MOST_FILE_BYTES)
        domain = _domain(load_network(Path(config.network)))
    except (Malformed, BadNetwork) as error:
        raise Failure(f"{file} is no attestation", str(error), code=Exit.USAGE) from None
    account = config.owner_address()
    owner = _belongs_to(config, account, domain)
    if found.subject not in (account, owner):
        raise Failure(
            f"it is about {checksummed(Address(found.subject))}",
            f"this node's owner is {checksummed(owner or account)}",
            "ask for one of this owner",
            Exit.USAGE,
        )
    if not signed_by(Address(found.attestor), found.signing_digest(domain), found.signature):
        raise Failure(
            "its signature isn't its attestor's on this network",
            "",
            "ask for it again, for this network",
            Exit.USAGE,
        )
    if found.expires_s <= time.time():
        raise Failure("it is over", "", "ask for a newer one", Exit.USAGE)
    folder = config.data / ATTESTATIONS
    path = folder / f"{found.label}-{Address(found.attestor).hex()[:16]}.bin"
    if not path.exists() and len(list(folder.glob("*.bin"))) >= MOST_ATTESTATIONS:
        raise Failure(
            f"{MOST_ATTESTATIONS} attestations lie in {folder}", "", "take one away first", Exit.USAGE
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The node reads it as soon as it lies there.
    write_atomically(path, data)
    return found, path


def _belongs_to(config: Config, account: Address, domain: Domain) -> Address | None:
    with contextlib.suppress(OSError, Malformed):
        said = decode_belonging((config.data / BELONGING).read_bytes())
        return owner_of(said, account, domain, time.time())
    return None


def _domain(network: Network) -> Domain:
    return network_domain(network.chain_id, network.contracts.registry)


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise Failure(f"{path} can't be read", error.strerror or "", code=Exit.USAGE) from None
    if len(data) > most:
        raise Failure(f"{path} is larger than {most} bytes", code=Exit.USAGE)
    return data
