"""Who this gateway is: its keys, its domains, and the contracts that it deals with."""

from collections.abc import Callable

import msgspec

from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest

Recover = Callable[[Digest, bytes], Address | None]
"""(digest, signature) to the key that signed, None for a malformed signature."""


class Party(msgspec.Struct, frozen=True):
    """Who this gateway is, and the contracts that it deals with."""

    owner: Address
    hot: Address
    token: Address
    channels: Address
    network: Domain
    vouchers: Domain
    epoch_s: int
    window_s: int
    sign: Callable[[Digest], bytes]
    recover: Recover
    till: Address | None = None
    confirmations: int = 0
    """blocks above one before its money counts; 0 on a chain that can't reorganise"""
