"""Copies that were sold: the key to whoever has a grant for one, the encrypted pieces to the same, as often as they are fetched.

    AskKey ──> permit(COPY) ──> spend, once for the grant ──> KeyGiven, sealed to who asked ──> used: a leaf of the log

Fetching again is no second use: a copy that broke off goes on. A grant that lives gets the key of the epoch that is in force, also after
somebody else's revocation keyed all anew; one that was revoked or has run out gets none, and what it had opens nothing that is stored since.
What was copied stays copied: no key takes it back.
"""

import asyncio
from typing import TYPE_CHECKING

from clusterai.protocol import canonical, copies
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.vaults import Operation
from clusterai.vault.adapters.access import told_or_why
from clusterai.vault.adapters.piecestore import StoreFault
from clusterai.vault.adapters.storage import Damaged
from clusterai.vault.core.schema import write_schema
from clusterai.vault.core.terms import Denied

if TYPE_CHECKING:
    from clusterai.vault.adapters.hosting import Vault


class Copies:
    """A service over a vault. Paid on chain (`Vaults.buyCopy`), before the grant is given: no orders."""

    engine = None

    def __init__(self, vault: "Vault") -> None:
        self._vault = vault

    async def answer(self, sender: Address, body: bytes) -> bytes:
        """
        Raises:
            Denied: the call can't be opened, so that nobody knows whom to answer.
        """
        asked = self._vault.opened(sender, body)
        try:
            # In a thread: a piece may have to be fetched from afar.
            told = await asyncio.to_thread(
                told_or_why,
                lambda: self._told(asked.signer, copies.decode_ask(asked.body)),
                copies.CopyNotGiven,
            )
        except Damaged:
            told = copies.CopyNotGiven("damaged", "the piece isn't here any more: ask for the key again")
        except StoreFault:
            told = copies.CopyNotGiven(
                "unreachable", "the vault can't read its data now: the same again later goes on"
            )
        return self._vault.sealed(asked, canonical.encode(told))

    def _told(self, signer: Address, ask: copies.Ask) -> copies.Told:
        self._allowed(Digest(ask.grant), signer)
        match ask:
            case copies.AskKey(grant):
                manifest, key = self._vault.copied()
                self._counted(Digest(grant), manifest.snapshot)
                pieces = tuple(
                    copies.Sealed(piece.address, piece.size, piece.rows, leaf)
                    for piece, leaf in zip(manifest.pieces, manifest.leaves, strict=True)
                )
                return copies.KeyGiven(
                    manifest.epoch, key, manifest.salt, write_schema(manifest.schema), pieces
                )
            case copies.AskPiece(_, address):
                return copies.PieceGiven(self._vault.stored(Digest(address)))

    def _allowed(self, grant: Digest, signer: Address) -> None:
        """
        Raises:
            Denied.
        """
        try:
            self._vault.permit(grant, signer, Operation.COPY, ZERO_DIGEST)
        except Denied as no:
            # `spent` is said last: it lives, is this signer's, and for a copy. Whether for this one, the book knows below.
            if no.code != "spent":
                raise
            self._vault.spend(grant, _order(grant), 0)

    def _counted(self, grant: Digest, snapshot: Digest) -> None:
        order = _order(grant)
        self._vault.spend(grant, order, 0)
        try:
            self._vault.used(order, snapshot)
        except Denied as no:
            if no.code != "closed":  # the first copy was of another version
                raise


def _order(grant: Digest) -> Digest:
    """Stands for the order that nobody placed: one use for each grant."""
    return canonical.content_digest(b"clusterai copy" + grant)


def host(vault: "Vault") -> Copies:
    """As every kind's `host`: a service over the vault."""
    return Copies(vault)
