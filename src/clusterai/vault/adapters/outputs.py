"""What programs left for review: encrypted, until the vault's owner has read it and lets it go, or not.

DIR/held/<order>   one output, with whose it is and what disclosure control found
"""

from pathlib import Path
from typing import Literal

import msgspec
from blake3 import blake3
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from clusterai.protocol.ids import Digest
from clusterai.protocol.statements import U40, AddressBytes, DigestBytes
from clusterai.vault.adapters.folder import BadVault, write_aside
from clusterai.vault.core.disclosure import Finding
from clusterai.vault.core.terms import Denied

MOST_HELD = 256
State = Literal["held", "released", "withheld"]


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One output. `note`: the owner's word where it was withheld."""

    order: DigestBytes
    grant: DigestBytes
    requester: AddressBytes
    output: bytes
    findings: tuple[Finding, ...]
    at_s: U40
    state: State = "held"
    note: str = ""


class Outputs:
    """All of a vault's."""

    def __init__(self, folder: Path, master: bytes) -> None:
        self._folder = folder
        self._box = SecretBox(blake3(master, derive_key_context="clusterai vault outputs 1").digest())

    def keep(self, output: Output) -> None:
        """Durable when it returns.

        Raises:
            Denied: too many wait.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if self.find(Digest(output.order)) is None:
            self._make_room()
        sealed = bytes(self._box.encrypt(msgspec.msgpack.encode(output)))
        write_aside(self._folder / output.order.hex(), sealed)

    def _make_room(self) -> None:
        """What was decided goes first, the oldest of it; its use stays in the log."""
        kept = self.all()
        if len(kept) < MOST_HELD:
            return
        decided = [it for it in kept if it.state != "held"]
        if not decided:
            raise Denied("busy", f"{MOST_HELD} outputs wait here already: wait for the vault's owner")
        (self._folder / decided[0].order.hex()).unlink()

    def find(self, order: Digest) -> Output | None:
        """
        Raises:
            BadVault: it was changed, or is under another key.
        """
        try:
            sealed = (self._folder / order.hex()).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return msgspec.msgpack.decode(self._box.decrypt(sealed), type=Output)
        except (CryptoError, ValueError) as error:
            raise BadVault(f"an output of the vault was changed, or is under another key: {error}") from None

    def all(self) -> list[Output]:
        """Oldest first.

        Raises:
            BadVault.
        """
        if not self._folder.exists():
            return []
        found = [self.find(Digest(bytes.fromhex(path.name))) for path in self._folder.glob("?" * 64)]
        return sorted((it for it in found if it is not None), key=lambda it: (it.at_s, it.order))
