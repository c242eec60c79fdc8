"""A certificate that clients wouldn't take is refused before a network is started with it."""

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.local.certified import shake


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Of gateway.example, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("gateway.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return certificate, secret


def test_one_that_is_trusted_for_its_name_is_taken(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    """And for no other name; both are found without a socket."""
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    shake(*files, "gateway.example")
    with pytest.raises(Failure, match=r"doesn't hold for 10\.77\.0\.1"):
        shake(*files, "10.77.0.1")


def test_one_that_nobody_trusts_names_what_to_do(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    """An authority of one's own has to be known here and at everybody who calls."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with pytest.raises(Failure, match="gateway") as refused:
        shake(*files, "gateway.example")
    assert "SSL_CERT_FILE" in refused.value.next


def test_what_is_no_certificate_is_refused(files: tuple[Path, Path]):
    """Files that were mixed up or aren't there are a fault of the command line."""
    certificate, key = files
    for pair in ((key, certificate), (certificate.with_name("none"), key)):
        with pytest.raises(Failure, match="can't be used for HTTPS") as refused:
            shake(*pair, "gateway.example")
        assert refused.value.code is Exit.USAGE
