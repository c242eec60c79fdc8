"""What stands on a local network's chain, read beside its processes: moves as they are made, and whose money is where."""

import asyncio
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from clusterai.ledger.adapters.client import ChainClient
from clusterai.ledger.adapters.follower import Cursor, LogFollower
from clusterai.ledger.adapters.network import Network as Manifest
from clusterai.ledger.adapters.network import load_network
from clusterai.ledger.core import events
from clusterai.protocol.ids import ZERO_ADDRESS, Address, digest
from tests.system.running import Network, until

POLL_S = 0.05


class Onchain:
    """Follows the chain of one network in a thread of its own; a chain that was killed is waited for, as daemons do."""

    def __init__(self, network: Network) -> None:
        self.manifest: Manifest = load_network(network.data / "network.json")
        self.told: list[Any] = []
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._task = self._loop.create_task(self._follow())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.close()

    async def _follow(self) -> None:
        async with ChainClient(self.manifest) as client:
            await LogFollower(client, self._deliver, poll_s=POLL_S).run()

    def _deliver(self, happened: Sequence[Any], cursor: Cursor) -> None:
        del cursor
        self.told += happened

    def close(self) -> None:
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(timeout=120)

    # --- moves ---

    def of(self, lease: str) -> list[Any]:
        """All that was said of a lease, in order."""
        wanted = digest(lease)
        return [event for event in list(self.told) if getattr(event, "lease", None) == wanted]

    def until(self, lease: str, kind: type, nth: int = 1) -> Any:
        """The nth event of a kind about a lease, once it is there."""

        def look() -> Any:
            found = [event for event in self.of(lease) if isinstance(event, kind)]
            return found[nth - 1] if len(found) >= nth else None

        return until(f"{kind.__name__} {nth} of {lease[:12]}", look)

    def hot_of(self, owner: Address) -> Address:
        """The key that acts for a participant."""
        return next(it.hot for it in self.told if isinstance(it, events.Delegated) and it.owner == owner)

    # --- money ---

    def moved(self) -> dict[Address, Counter[Address]]:
        """Of each contract that holds money for leases: what everyone has taken out of it, less what he put in."""
        contracts = self.manifest.contracts
        held = (contracts.leases, contracts.audits, contracts.disputes)
        net: dict[Address, Counter[Address]] = defaultdict(Counter)
        for event in list(self.told):
            if isinstance(event, events.Transferred):
                if event.to in held:
                    net[event.to][event.source] -= event.value
                if event.source in held:
                    net[event.source][event.to] += event.value
        return net

    def audit(self, vested: bool = False) -> None:
        """No token was made or lost, and no contract holds money of a lease that is over.

        Args:
            vested: whether a newcomer's tenth may still lie with Leases.
        """
        self._settled()
        balances, supply, waiting = asyncio.run(self._balances())
        assert sum(balances.values()) == supply, "every token is somebody's"
        contracts = self.manifest.contracts
        assert balances.get(contracts.audits, 0) == balances.get(contracts.disputes, 0) == 0
        assert balances.get(contracts.leases, 0) == waiting
        assert vested or not waiting
        closed = Counter(event.lease for event in self.told if isinstance(event, events.LeaseClosed))
        assert set(closed.values()) <= {1}, "nobody is paid twice"
        assert closed.keys() == {event.lease for event in self.told if isinstance(event, events.LeaseOpened)}

    def _settled(self) -> None:
        def over() -> bool:
            told = list(self.told)
            opened = {event.lease for event in told if isinstance(event, events.LeaseOpened)}
            return opened == {event.lease for event in told if isinstance(event, events.LeaseClosed)}

        until("every lease to be closed", over)

    async def _balances(self) -> tuple[dict[Address, int], int, int]:
        """Everyone's, the supply, and what waits to vest: of one moment."""
        vesting = 0
        who: dict[Address, None] = {}
        for event in list(self.told):
            match event:
                case events.Transferred(source, to):
                    who |= {source: None, to: None}
                case events.PayVested(_, _, amount):
                    vesting += amount
                case events.VestedReleased(_, amount):
                    vesting -= amount
                case _:
                    pass
        who.pop(ZERO_ADDRESS, None)
        async with ChainClient(self.manifest) as client:
            reads: list[tuple[Any, str, Sequence[Any]]] = [("Token", "balanceOf", (one,)) for one in who]
            found = await client.read_many([*reads, ("Token", "totalSupply", ())])
        return dict(zip(who, found[:-1], strict=True)), found[-1], vesting


def kinds(told: Sequence[Any]) -> list[str]:
    return [type(event).__name__ for event in told]
