"""How one validator works: who it is, the rules of its network, and its patience."""

import msgspec

from clusterai.ledger.core.rules import Rules
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one validator works.

    Attributes:
        me: this validator's owner.
        seal_to: its X25519 public key.
        network, court: EIP-712 domains.
        rules: the contracts' parameters as the manifest tells them; those that a governor may change are followed.
        confirmations: blocks that must stand above a beacon before it is believed.
        patience_s: how long a provider is asked over gateways before it is challenged on chain.
        retry_s: pause between two asks, doubled up to 8 times; and before a failed check is tried again.
        margin_s: how long before the last moment a challenge is sent, for the chain to mine it.
        lag_s: how far the chain's clock may stand behind ours and still count as caught up.
    """

    me: Address
    seal_to: bytes
    network: Domain
    court: Domain
    rules: Rules
    confirmations: int = 1
    patience_s: int = 3_600
    retry_s: float = 2.0
    margin_s: int = 4
    lag_s: int = 30
