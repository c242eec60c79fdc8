"""What gateways owe on their channels, as receipts and vouchers say; it follows from the journal alone."""

from collections.abc import Iterable

from clusterai.ledger.core.claims import ClaimBook, Vouched
from clusterai.node.core.leases import Carried, Made
from clusterai.protocol.ids import Digest


class Debts:
    def __init__(self, claims: ClaimBook) -> None:
        self._claims = claims
        self._produced_wei: dict[Digest, int] = {}
        """channel to the sum of its receipts that weren't disputed"""
        self._disputed_wei: dict[Digest, int] = {}
        """channel to what it disputed since its last payment"""

    def owed_wei(self, channel_id: Digest) -> int:
        """Receipts that the channel's vouchers don't cover; negative where it paid ahead."""
        return self._produced_wei.get(channel_id, 0) - self._claims.vouched_wei(channel_id)

    def disputed_wei(self, channel_id: Digest) -> int:
        return self._disputed_wei.get(channel_id, 0)

    def made(self, made: Made) -> None:
        if not made.disputed:
            _add(self._produced_wei, Digest(made.channel_id), made.receipt.amount_wei)
        if made.cut_wei:
            _add(self._disputed_wei, Digest(made.channel_id), made.cut_wei)

    def disputed(self, made: Made) -> None:
        channel_id = Digest(made.channel_id)
        _add(self._produced_wei, channel_id, -made.receipt.amount_wei)
        _add(self._disputed_wei, channel_id, made.receipt.amount_wei)

    def paid(self, vouched: Vouched) -> None:
        """What a channel newly pays makes up for as much that it disputed. To be told before the claims are."""
        channel_id = Digest(vouched.channel_id)
        rise_wei = max(0, vouched.amount_wei - self._claims.vouched_wei(channel_id))
        disputed_wei = self._disputed_wei.get(channel_id, 0) - rise_wei
        if disputed_wei > 0:
            self._disputed_wei[channel_id] = disputed_wei
        else:
            self._disputed_wei.pop(channel_id, None)

    def carried(self, carried: Carried) -> None:
        _add(self._produced_wei, Digest(carried.channel_id), carried.amount_wei)

    def snapshot(self, kept: Iterable[Made]) -> list[Carried]:
        """What forgotten receipts put on each channel: all that isn't in those that a snapshot holds itself."""
        left_wei = dict(self._produced_wei)
        for made in kept:
            if not made.disputed:
                left_wei[Digest(made.channel_id)] -= made.receipt.amount_wei
        return [Carried(channel_id, amount_wei) for channel_id, amount_wei in left_wei.items()]


def _add(table: dict[Digest, int], key: Digest, amount: int) -> None:
    table[key] = table.get(key, 0) + amount
