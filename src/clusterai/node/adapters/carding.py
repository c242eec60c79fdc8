"""The machine's card as a file, and its digest in the Registry: written anew when a validator says something new.

    Measured ── signed, of this machine, by one who was drawn? ──> card.bin ──> UpdateCard(digest), once a day at most

Attestations are files beside it, `attestations/*.bin`, each the canonical bytes of one, and `belonging.bin` says whose machine this is. Gateways that list the machine are told its card,
again as soon as one of these files changes.
"""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from clusterai.ledger.core.calls import Submit, UpdateCard
from clusterai.protocol import canonical
from clusterai.protocol.belonging import Belonging, decode_belonging, owner_of
from clusterai.protocol.canonical import Malformed, content_digest
from clusterai.protocol.cards import MOST_ATTESTATIONS, Attestation, Card, decode_card, with_measured
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, hex0x
from clusterai.protocol.measuring import Claims, Measured, decode_findings
from clusterai.protocol.offering import Carded
from clusterai.protocol.offers import decode_measurement, signed_digest
from clusterai.protocol.signing import BadSignature, recover
from clusterai.runtime.machine import Linked, Send, Unlinked

DAY_S = 86_400.0
CARD = "card.bin"
SENT = "card-sent.json"
ATTESTATIONS = "attestations"
BELONGING = "belonging.bin"
OWN_KEYS = "card-"

log: structlog.stdlib.BoundLogger = structlog.get_logger("carding")


class _Sent(msgspec.Struct, frozen=True):
    digest: str
    at_s: float


class Carding:
    """One node's card. `may` says whether a key speaks for a validator that was drawn."""

    def __init__(
        self,
        folder: Path,
        operator: Address,
        node: Address,
        network: Domain,
        claims: Callable[[], Claims],
        may: Callable[[Address, Address], bool],
        submit: Callable[[Any], None],
        clock: Callable[[], float],
        offered: bool = False,
    ) -> None:
        """
        Args:
            submit: performs what is to be sent, to the chain and to gateways.
            offered: whether gateways are told of the card.
        """
        self._offered = offered
        self._gateways: dict[Address, None] = {}
        self._folder, self._operator, self._node, self._network = folder, operator, node, network
        self._claims, self._may, self._submit, self._clock = claims, may, submit, clock
        self._seen = self._lying()

    def links(self, event: Any) -> None:
        """A gateway that is linked is told the card, with the attestations that lie there now."""
        match event:
            case Linked(peer) if self._offered:
                self._gateways[peer] = None
                self._tell([peer])
            case Unlinked(peer):
                self._gateways.pop(peer, None)
            case _:
                pass

    def look(self) -> None:
        """Whether its owner put something beside the card or took it away: all are told at once."""
        lying = self._lying()
        if lying != self._seen:
            self._seen = lying
            self._tell(self._gateways, by_owner=True)

    def _lying(self) -> tuple[tuple[str, int, int], ...]:
        found: list[tuple[str, int, int]] = []
        for path in (self._folder / BELONGING, *sorted((self._folder / ATTESTATIONS).glob("*.bin"))):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                found.append((path.name, stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def _tell(self, peers: Iterable[Address], *, by_owner: bool = False) -> None:
        old = read_card(self._folder)
        is_ours = old is not None and old.node == self._node
        measured = old.measured if old is not None and is_ours else ()
        at_s = int(self._clock()) if old is None or by_owner else old.written_s
        data = canonical.encode(self._written(measured, at_s))
        if is_ours and content_digest(data) != card_digest(self._folder):
            # What gateways are told, the file and the Registry are one card.
            self._write(CARD, data)
            self._publish(content_digest(data), by_owner=by_owner)
        for peer in peers:
            self._submit(Send(peer, Carded(data)))

    def hear(self, measured: Measured) -> None:
        """Take what a validator says, if it is so; the card and perhaps the Registry follow."""
        why = self._wrong(measured)
        if why:
            log.warning("measurement_refused", why=why)
            return
        now_s = int(self._clock())
        old = read_card(self._folder)
        before = () if old is None or old.node != self._node else old.measured
        data = canonical.encode(with_measured(self._written(before, now_s), measured, now_s))
        self._write(CARD, data)
        log.info("card", digest=hex0x(content_digest(data)))
        self._publish(content_digest(data))
        for peer in self._gateways:
            self._submit(Send(peer, Carded(data)))

    def _wrong(self, measured: Measured) -> str:
        try:
            said = decode_measurement(measured.measurement)
            decode_findings(measured.findings)
            signer = recover(signed_digest(said, self._network), measured.signature)
        except (Malformed, BadSignature) as error:
            return str(error)
        if said.node != self._node or content_digest(measured.findings) != said.findings:
            return "it is of another machine, or its findings are other ones"
        if not self._may(signer, Address(said.validator)):
            return "its signer wasn't drawn to measure this machine"
        return ""

    def _attestations(self) -> tuple[Attestation, ...]:
        found: list[Attestation] = []
        for path in sorted((self._folder / ATTESTATIONS).glob("*.bin"))[:MOST_ATTESTATIONS]:
            try:
                found.append(canonical.decode(path.read_bytes(), Attestation, 1_024))
            except (Malformed, OSError) as error:
                log.warning("attestation_refused", file=path.name, why=str(error))
        return tuple(found)

    def _written(self, measured: tuple[Measured, ...], at_s: int) -> Card:
        return Card(
            self._operator,
            self._node,
            self._claims(),
            measured,
            self._attestations(),
            at_s,
            self._belonging(),
        )

    def _belonging(self) -> Belonging | None:
        """What lies there, if it holds."""
        try:
            found = decode_belonging((self._folder / BELONGING).read_bytes())
        except FileNotFoundError:
            return None
        except (Malformed, OSError) as error:
            log.warning("belonging_refused", why=str(error))
            return None
        if owner_of(found, self._operator, self._network, self._clock()) is None:
            log.warning("belonging_refused", why="it is of another account, not signed by both, or over")
            return None
        return found

    def _publish(self, digest: Digest, *, by_owner: bool = False) -> None:
        """A transaction each: once a day for what validators say, at once for what the owner did by hand."""
        now_s = self._clock()
        try:
            sent = msgspec.json.decode((self._folder / SENT).read_bytes(), type=_Sent)
        except (OSError, msgspec.MsgspecError):
            sent = _Sent("", 0.0)
        if sent.digest == hex0x(digest) or (now_s < sent.at_s + DAY_S and not by_owner):
            return
        self._write(SENT, msgspec.json.encode(_Sent(hex0x(digest), now_s)))
        self._submit(Submit(f"{OWN_KEYS}{digest.hex()[:16]}", UpdateCard(digest)))

    def _write(self, name: str, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self._folder / f".{name}"
        fresh.write_bytes(data)
        fresh.replace(self._folder / name)


def read_card(folder: Path) -> Card | None:
    """The card that lies there; None where there is none, or a damaged one."""
    try:
        return decode_card((folder / CARD).read_bytes())
    except (OSError, Malformed):
        return None


def card_digest(folder: Path) -> Digest | None:
    """Of the file as it is."""
    try:
        return content_digest((folder / CARD).read_bytes())
    except OSError:
        return None
