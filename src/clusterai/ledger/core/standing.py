"""What the chain knows of a key that speaks for somebody's data: whom it acts for, what is at stake, what is listed."""

import msgspec

from clusterai.protocol.ids import ZERO_ADDRESS, Address, Role


class Standing(msgspec.Struct, frozen=True):
    """A key and a data set at one moment.

    Attributes:
        owner: whom the key acts for now; zeros for nobody.
        barred: the owner was convicted.
        stake_wei: what the owner would lose; what is unbonding doesn't count.
        lister: owner of the data set as it is listed there; zeros: it isn't. `frozen`: its vault was convicted with it.
        serial: of that listing; None where there is none yet: gateways hear of one earlier.
        said: card, snapshot, policy and noise key of that listing.
    """

    owner: Address
    roles: int = 0
    barred: bool = False
    stake_wei: int = 0
    lister: Address = ZERO_ADDRESS
    frozen: bool = False
    serial: int | None = None
    said: tuple[bytes, bytes, bytes, bytes] | None = None

    @property
    def provides(self) -> bool:
        return bool(self.roles & Role.PROVIDER)
