"""A shell on a rented machine, over the mesh: no SSH, no open port."""

import asyncio

from clusterai.cli.failure import Failure
from clusterai.cli.renting.folder import KeeperState
from clusterai.cli.renting.named import short
from clusterai.mesh import net_of
from clusterai.protocol.ids import digest
from clusterai.sdk.rentalshapes import Rental
from clusterai.work.cluster.adapters.terminal import NoShell, Terminal, attach


def open_shell(it: Rental, place: int, keeper: KeeperState | None) -> int:
    """Join this terminal to it until it ends: its exit code.

    Raises:
        Failure: not connected from here, or the machine gives none.
    """
    if keeper is None or keeper.phase != "connected":
        raise Failure(
            "a shell goes over the cluster's private network, and this machine isn't in it",
            "" if keeper is None else keeper.detail,
            f"clusterai rent connect {short(it)}",
        )
    if keeper.namespace:
        from pyroute2 import netns

        netns.setns(keeper.namespace)
    try:
        return asyncio.run(_joined(net_of(digest(it.id)).address(place), bytes.fromhex(it.token)))
    except NoShell as error:
        raise Failure(
            f"machine {place} gives no shell", str(error), f"clusterai rent show {short(it)}"
        ) from None


async def _joined(address: str, token: bytes) -> int:
    async with await Terminal.open(address, token) as terminal:
        return await attach(terminal)
