"""The vault's desk: answers calls to `subject(dataset, "vault")`. It takes no orders: asking costs nothing, and gives nothing that isn't public.

call ──> opened ──> AskAccess, AskStanding, AskData, AskUses, AskOutput ──> sealed to who asked
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from clusterai.protocol import access, canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.vaults import Revoked
from clusterai.vault.core.policy import write_policy
from clusterai.vault.core.schema import write_schema
from clusterai.vault.core.terms import AskedFor, Denied, Entry

if TYPE_CHECKING:
    from clusterai.vault.adapters.hosting import Vault


T = TypeVar("T")
N = TypeVar("N")


def told_or_why(tell: Callable[[], T], refusal: Callable[[str, str], N]) -> T | N:
    """What is told, or the words for why not."""
    try:
        return tell()
    except Malformed as error:
        return refusal("malformed", str(error)[:2_000])
    except Denied as no:
        return refusal(no.code, no.detail[:2_000])


class Desk:
    """A service over a vault, as those of kinds of work are.

    Attributes:
        engine: none; there is nothing to pay here.
    """

    engine = None

    def __init__(self, vault: "Vault") -> None:
        self._vault = vault

    async def answer(self, sender: Address, body: bytes) -> bytes:
        """
        Raises:
            Denied: the call can't be opened, so that nobody knows whom to answer.
        """
        asked = self._vault.opened(sender, body)
        told = told_or_why(lambda: self._told(asked.signer, access.decode_ask(asked.body)), access.NotGiven)
        return self._vault.sealed(asked, canonical.encode(told))

    def _told(self, signer: Address, ask: access.Ask) -> access.Told:
        match ask:
            case access.AskAccess(signed, purpose, code):
                if signed.request.requester != signer:
                    raise Denied("requester", "the request is somebody else's")
                return access.Standing((self._status(self._vault.ask(AskedFor(signed, purpose, code))),))
            case access.AskStanding():
                mine = [entry for entry in self._vault.entries() if entry.requester == signer]
                return access.Standing(tuple(self._status(entry) for entry in mine[-access.MOST_STANDINGS :]))
            case access.AskData():
                return access.DataShown(
                    write_schema(self._vault.schema),
                    self._vault.mock(),
                    write_policy(self._vault.policy),
                    self._vault.left_micro(signer),
                )
            case access.AskUses(first):
                mine = [
                    row.signed
                    for row in self._vault.uses()
                    if row.requester == signer and row.signed is not None
                ]
                return access.UsesShown(tuple(mine[first : first + access.MOST_USES]), self._vault.anchored)

            case access.AskOutput(order):
                return access.OutputShown(*self._vault.review.released(Digest(order), signer))

    def _status(self, entry: Entry) -> access.Status:
        request, decided = entry.signed.request, entry.decided
        state, note = entry.state, self._vault.why_waiting(entry) if decided is None else decided.note
        if state == "granted" and self._vault.now_s >= request.expires_s:
            state = "expired"
        if state == "revoked":
            note = Revoked(entry.ended_reason).name.lower() if entry.ended_reason else "the chain refused it"
        return access.Status(
            entry.request,
            entry.grant or ZERO_DIGEST,
            state,
            request.operation,
            request.code,
            request.epsilon_micro,
            entry.spent_micro,
            request.uses,
            entry.uses,
            request.expires_s,
            note,
            0 if decided is None else decided.milli_epsilon_wei,
            0 if decided is None else decided.use_wei,
        )


def host(vault: "Vault") -> Desk:
    """As every kind's `host`: a service over the vault."""
    return Desk(vault)
