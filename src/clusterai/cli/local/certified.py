"""A certificate for HTTPS, tried before anything is started with it."""

import ssl
from pathlib import Path

from clusterai.cli.failure import Exit, Failure


def shake(certificate: Path, key: Path, host: str) -> None:
    """A handshake in memory, as a client of this machine that calls that host would have it.

    Raises:
        Failure: the files can't be used, or the client doesn't trust them for this host.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(certificate, key)
    except OSError as error:
        raise Failure(
            f"{certificate} and {key} can't be used for HTTPS", str(error), code=Exit.USAGE
        ) from None
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    answers = server.wrap_bio(to_server, to_client, server_side=True)
    asks = ssl.create_default_context().wrap_bio(to_client, to_server, server_hostname=host)
    try:
        while not _is_done(asks):
            _is_done(answers)
    except ssl.SSLCertVerificationError as error:
        raise Failure(
            f"{certificate} doesn't hold for {host} on this machine, nor on others",
            error.verify_message,
            "a certificate of that name or address; of an authority of your own: export SSL_CERT_FILE=ca.pem, here and there",
            Exit.USAGE,
        ) from None


def _is_done(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
