"""A requester's keys: one that signs, one that is sealed to. They are made on its own machine and stay there.

The file holds both, readable by its owner alone. Whoever has it spends the grants that were given to it; losing it loses them.
"""

import os
import secrets
import stat
from pathlib import Path

import msgspec
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey, SealedBox

from clusterai.protocol import canonical
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.sealing import LONGEST_S, NONCE_BYTES, SealedCall
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import AccessRequest, SignedRequest

MOST_FILE_BYTES = 4_096
SKEW_S = 5
"""A vault's clock may be behind ours a little."""


class BadIdentity(ValueError):
    """{path} is no identity that can be used: {why}."""


class NotFromVault(ValueError):
    """The answer wasn't sealed by this vault for this call: it was changed on its way, or is another's. Ask again, through another gateway."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sign: str
    seal: str


class Question(msgspec.Struct, frozen=True):
    """A sealed call, and what its answer must fit."""

    body: bytes
    nonce: Digest


class Identity:
    """A requester."""

    def __init__(self, key: Key, seal: bytes) -> None:
        """
        Args:
            seal: 32 bytes, the X25519 secret.
        """
        self.key = key
        self._seal = PrivateKey(seal)

    @property
    def address(self) -> Address:
        return self.key.address

    @property
    def seal_to(self) -> bytes:
        """The X25519 public key."""
        return bytes(self._seal.public_key)

    @classmethod
    def make(cls) -> "Identity":
        return cls(Key(secrets.token_bytes(32)), secrets.token_bytes(32))

    @classmethod
    def load_or_make(cls, path: Path) -> "Identity":
        """
        Raises:
            BadIdentity: it can't be read, is readable by others, or isn't one.
        """
        if not path.exists():
            made = cls.make()
            made.save(path)
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> "Identity":
        """
        Raises:
            BadIdentity: it can't be read, is readable by others, or isn't one.
        """
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(MOST_FILE_BYTES)
        except OSError as error:
            raise BadIdentity(f"{path}: {error.strerror}") from None
        if stat.S_IMODE(mode) & 0o077:
            raise BadIdentity(f"{path}: others may read it: chmod 600 {path}")
        try:
            found = msgspec.json.decode(data, type=_File)
            return cls(Key(bytes.fromhex(found.sign)), bytes.fromhex(found.seal))
        except (ValueError, TypeError):
            # `from None`: a traceback must never carry key material along
            raise BadIdentity(f"{path} is no identity: move it away, and one is made anew") from None

    def save(self, path: Path) -> None:
        """
        Raises:
            FileExistsError: an identity is never written over.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(
                    msgspec.json.encode(_File(self.key.secret().hex(), bytes(self._seal).hex())) + b"\n"
                )
                file.flush()
                os.fsync(file.fileno())
            # A link, not a rename: two that begin at once end with one identity.
            path.hardlink_to(aside)
        finally:
            aside.unlink()

    # --- what it signs ---

    def request(
        self,
        dataset: Digest,
        network: Domain,
        operation: int,
        purpose: str,
        epsilon_micro: int,
        uses: int,
        price_wei: int,
        expires_s: int,
        code: bytes = b"",
        nonce: Digest | None = None,
    ) -> SignedRequest:
        """A signed wish; `code` is the program itself."""
        wish = AccessRequest(
            dataset,
            self.address,
            self.seal_to,
            operation,
            canonical.content_digest(code) if code else ZERO_DIGEST,
            canonical.content_digest(purpose.encode()),
            epsilon_micro,
            uses,
            price_wei,
            expires_s,
            nonce or Digest(secrets.token_bytes(NONCE_BYTES)),
        )
        return SignedRequest(wish, self.key.sign(wish.signing_digest(network)))

    def sealed(
        self,
        dataset: Digest,
        vault_seal_to: bytes,
        network: Domain,
        body: bytes,
        now_s: float,
        life_s: int = LONGEST_S - 2 * SKEW_S,
    ) -> Question:
        """A call that this vault alone can read, and that counts once.

        Args:
            vault_seal_to: the X25519 key in the vault's card.
        """
        nonce = Digest(secrets.token_bytes(NONCE_BYTES))
        call = SealedCall(dataset, self.address, self.seal_to, nonce, int(now_s), int(now_s) + life_s, body)
        signed = msgspec.structs.replace(call, signature=self.key.sign(call.signing_digest(network)))
        return Question(SealedBox(PublicKey(vault_seal_to)).encrypt(canonical.encode(signed)), nonce)

    def opened(self, vault_seal_to: bytes, reply: bytes, nonce: Digest = ZERO_DIGEST) -> bytes:
        """What the vault answered.

        Args:
            nonce: of the question; zeros for what was sealed to this identity without one.

        Raises:
            NotFromVault.
        """
        try:
            plain = Box(self._seal, PublicKey(vault_seal_to)).decrypt(reply)
        except (CryptoError, ValueError, TypeError):
            raise NotFromVault(NotFromVault.__doc__) from None
        if plain[:NONCE_BYTES] != nonce:
            raise NotFromVault(NotFromVault.__doc__)
        return plain[NONCE_BYTES:]

    def __repr__(self) -> str:
        return f"Identity(0x{self.address.hex()})"
