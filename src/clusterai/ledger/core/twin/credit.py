"""Credit.sol: prepaid credit at a gateway."""

from clusterai.ledger.core.events import Funded
from clusterai.ledger.core.twin.registry import GATEWAY, Registry
from clusterai.ledger.core.twin.state import Transaction, World, require
from clusterai.ledger.core.twin.token import Token
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest


class Credit:
    def __init__(self, world: World, token: Token, registry: Registry) -> None:
        self._token = token
        self._registry = registry
        self._here = world.addresses.credit

    def fund(self, tx: Transaction, gateway: Address, account: Digest, amount: int) -> None:
        require(amount != 0, "ZeroAmount")
        owner = self._registry.owner_of(gateway)
        _, roles = self._registry.standing(gateway)
        require(owner != ZERO_ADDRESS and roles & GATEWAY != 0, "NotGateway")
        tx.emit(Funded(owner, account, tx.sender, amount))
        self._token.pull(tx, self._here, tx.sender, owner, amount)
