"""Who put money on accounts and wants some of it back: asks, and asks the same again until the chain has paid it."""

from random import Random
from typing import TYPE_CHECKING

from blake3 import blake3

from clusterai.gateway.core.payouts import Withdraw
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.money import WEI_PER_TOKEN
from clusterai.protocol.withdrawal import Withdrawal
from clusterai.runtime.simulator.timeline import SECOND_US
from tests.simulation.world.chain import DEPLOYER
from tests.simulation.world.gateways import NETWORK

if TYPE_CHECKING:
    from tests.simulation.world.clients import Client
    from tests.simulation.world.world import World

HOLDS_S = 3_000
AGAIN_US = (2 * SECOND_US, 30 * SECOND_US)


class Wallet:
    """One withdrawal from a client's account, to an address of its own."""

    def __init__(self, world: "World", client: "Client", number: int) -> None:
        self.world = world
        self.client = client
        self._random = Random(f"withdrawal {number} of {client.name} {world.seed}")
        name = f"{client.name} withdraws {number}"
        self.home = Address(blake3(name.encode()).digest(20))
        wish = Withdrawal(
            client.gateway.party.address,
            client.account,
            self.home,
            self._random.randint(1, 200) * WEI_PER_TOKEN // 1_000,
            int(world.simulation.start_s) + HOLDS_S,
            blake3(name.encode()).digest(),
        )
        self.name: Digest = wish.name(NETWORK)
        self._asked = Withdraw(wish, DEPLOYER.sign(self.name))
        world.simulation.timeline.after(
            1 + int(self._random.random() * world.shape.busy_s * SECOND_US), self._ask
        )

    @property
    def paid_wei(self) -> int:
        return self.world.ledger.twin.token.balance(self.home)

    def _ask(self) -> None:
        """Also what was paid already, now and then: an answer may be lost on its way."""
        self.client.gateway.process.post(self._random.randint(100, 20_000), self._asked)
        if not self.paid_wei or self._random.random() < 0.5:
            self.world.simulation.timeline.after(self._random.randint(*AGAIN_US), self._ask)
