"""Cards of machines, as their nodes told them here: for whoever asks, and for what is attested of operators."""

import base64
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import structlog

from clusterai.market.core.placement import Index
from clusterai.protocol.belonging import owner_of
from clusterai.protocol.canonical import Malformed, content_digest
from clusterai.protocol.cards import Card, attested, decode_card, lines
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, hex0x
from clusterai.sdk.offershapes import CardLine, CardView

MOST_BYTES = 64 << 20
"""Of all cards; those that were told longest ago go."""
MOST_OF_ONE = 256
"""Cards of one operator."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("cards")


class Cards:
    """Of machines whose operators were linked here since this gateway started."""

    def __init__(
        self,
        index: Index,
        network: Domain,
        most_bytes: int = MOST_BYTES,
        belong: Callable[[Address, Address | None, int, float], None] | None = None,
    ) -> None:
        """
        Args:
            belong: told of each account whose it is, until when; None is nobody else's.
        """
        self._index, self._network, self._most_bytes = index, network, most_bytes
        self._belong = belong
        self._cards: OrderedDict[Address, tuple[Card, bytes]] = OrderedDict()
        self._bytes = 0

    def hear(self, peer: Address, data: bytes, now_s: float) -> str:
        """Take a card from its operator's link; why not, or nothing."""
        try:
            card = decode_card(data)
        except Malformed as error:
            return str(error)
        if card.operator != peer:
            return "a link carries its own operator's cards alone"
        node = Address(card.node)
        held = self._cards.get(node)
        if held is not None and held[0].operator != peer:
            return "another operator told a card of that machine"
        if held is None and sum(it.operator == peer for it, _ in self._cards.values()) >= MOST_OF_ONE:
            return f"{MOST_OF_ONE} cards of one operator are kept"
        if held is not None:
            self._drop(node)
        self._cards[node] = card, data
        self._bytes += len(data)
        # Attestations are of the owner: those of its newest card hold.
        self._index.attest(peer, attested(card, self._network, now_s))
        owner = owner_of(card.belonging, peer, self._network, now_s)
        if self._belong is not None:
            self._belong(peer, owner, card.belonging.expires_s if card.belonging is not None else 0, now_s)
        while self._bytes > self._most_bytes:
            self._drop(next(iter(self._cards)))
        return ""

    def _drop(self, node: Address) -> None:
        _, data = self._cards.pop(node)
        self._bytes -= len(data)

    def view(self, node: Address, now_s: float) -> CardView | None:
        held = self._cards.get(node)
        if held is None:
            return None
        card, data = held
        proven = attested(card, self._network, now_s)
        owner = owner_of(card.belonging, Address(card.operator), self._network, now_s)
        return CardView(
            digest=hex0x(content_digest(data)),
            node=hex0x(card.node),
            operator=hex0x(card.operator),
            card=base64.b64encode(data).decode(),
            lines=tuple(CardLine(**msgspec.structs.asdict(it)) for it in lines(card)),
            proven=tuple(f"{label}@{hex0x(attestor)}" for label, attestor in proven),
            belongs_to=None if owner is None else hex0x(owner),
        )
