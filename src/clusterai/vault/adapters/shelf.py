"""What a service of a vault must still know when its process was killed: small files, encrypted, each whole or not there.

DIR/state/<service>/<name>     under a key of the service's own
"""

import contextlib
from pathlib import Path

from blake3 import blake3
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from clusterai.vault.adapters.folder import BadVault, write_aside


class Shelf:
    """One service's. Names are its own, never a stranger's words."""

    def __init__(self, folder: Path, key: bytes) -> None:
        """
        Args:
            key: `shelves_key`, from which each service has its own.
        """
        self._folder = folder
        context = f"clusterai vault shelf {folder.name} 1"
        self._box = SecretBox(blake3(key, derive_key_context=context).digest())

    def put(self, name: str, data: bytes) -> None:
        """Durable when it returns."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_aside(self._folder / name, bytes(self._box.encrypt(data)))

    def get(self, name: str) -> bytes | None:
        """
        Raises:
            BadVault: it was changed, or is under another key.
        """
        try:
            sealed = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return self._box.decrypt(sealed)
        except CryptoError:
            raise BadVault(f"{self._folder / name} was changed, or is under another key") from None

    def names(self) -> list[tuple[str, float]]:
        """What is there, and when it was put there, in seconds since 1970."""
        found: list[tuple[str, float]] = []
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self._folder.iterdir()):
                with contextlib.suppress(FileNotFoundError):
                    found.append((path.name, path.stat().st_mtime))
        return found

    def drop(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)


def shelves_key(master: bytes) -> bytes:
    return blake3(master, derive_key_context="clusterai vault shelves 1").digest()
