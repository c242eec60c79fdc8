"""A shell or a notebook on a rented machine, over the mesh: no SSH, no open port."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Generator

from clusterai.cli.failure import Failure
from clusterai.cli.renting.folder import KeeperState
from clusterai.cli.renting.named import short
from clusterai.mesh import net_of
from clusterai.protocol.ids import digest
from clusterai.sdk.rentalshapes import Rental
from clusterai.work.cluster.adapters.notebook import NoNotebook, serve
from clusterai.work.cluster.adapters.terminal import NoShell, Terminal, attach
from clusterai.work.cluster.spec import NOTEBOOK_PORT


def open_shell(it: Rental, place: int, keeper: KeeperState | None) -> int:
    """Join this terminal to it until it ends: its exit code.

    Raises:
        Failure: not connected from here, or the machine gives none.
    """
    with _within(it, place, keeper) as address:
        return asyncio.run(_joined(address, bytes.fromhex(it.token)))


def open_notebook(it: Rental, place: int, keeper: KeeperState | None, ready: Callable[[str], None]) -> int:
    """JupyterLab on a machine until it ends or is interrupted: its exit code.

    Args:
        ready: hears the address for a browser.

    Raises:
        Failure: not connected from here, the machine gives no shell, or JupyterLab doesn't start there.
    """
    with _within(it, place, keeper) as address:
        try:
            return asyncio.run(serve(address, bytes.fromhex(it.token), ready, sys.stderr.buffer.write))
        except KeyboardInterrupt:
            return 0
        except NoNotebook as error:
            why = f"clusterai rent shell {short(it)} --place {place}, and look whether port {NOTEBOOK_PORT} is taken"
            raise Failure(f"no notebook on machine {place}", str(error), why) from None


@contextlib.contextmanager
def _within(it: Rental, place: int, keeper: KeeperState | None) -> Generator[str]:
    """This process in the cluster's private network: the machine's address there."""
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
        yield net_of(digest(it.id)).address(place)
    except NoShell as error:
        raise Failure(
            f"machine {place} gives no shell", str(error), f"clusterai rent show {short(it)}"
        ) from None


async def _joined(address: str, token: bytes) -> int:
    async with await Terminal.open(address, token) as terminal:
        return await attach(terminal)
