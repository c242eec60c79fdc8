"""A gateway's TLS certificate: self-signed, because the greeting vouches for it and no authority has to.

Callers don't check names or issuers; they check that the gateway's registered key signed this certificate's
fingerprint for this connection.
"""

import datetime
import hashlib
import os
import ssl
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID_DAYS = 3650
"""Nobody checks the dates; a date that passes must not stop a network."""


class Certificate(msgspec.Struct, frozen=True):
    """Paths of the PEM files, and the SHA-256 of the DER certificate."""

    chain: Path
    key: Path
    fingerprint: bytes


def certificate(folder: Path) -> Certificate:
    """The certificate kept in `folder`, made there the first time."""
    chain, key = folder / "link.crt.pem", folder / "link.key.pem"
    if not (chain.exists() and key.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        _make(chain, key)
    loaded = x509.load_pem_x509_certificate(chain.read_bytes())
    return Certificate(chain, key, fingerprint_of(loaded.public_bytes(serialization.Encoding.DER)))


def fingerprint_of(der: bytes) -> bytes:
    return hashlib.sha256(der).digest()


def host_context(own: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(own.chain, own.key)
    # No resumption: a session ticket would let a connection come up without showing the certificate.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


def caller_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = (
        ssl.CERT_NONE
    )  # the signed greeting proves the certificate, see the module's docstring
    return context


def _make(chain: Path, key: Path) -> None:
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clusterai link")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .sign(secret, hashes.SHA256())
    )
    # The certificate is written last: its presence says that both are whole.
    key.unlink(missing_ok=True)
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(
            secret.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    partial = chain.with_suffix(".partial")
    partial.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    partial.replace(chain)
