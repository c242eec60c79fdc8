"""JupyterLab on a rented machine, begun through the cluster's shell: it listens in the mesh alone, and ends with the session."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable

from clusterai.work.cluster.adapters.terminal import Terminal
from clusterai.work.cluster.spec import NOTEBOOK_PORT

STARTS_S = 120.0
"""JupyterLab loads some hundred modules, on a machine that may be busy."""
LOOK_S = 0.2
MOST_SAID = 1 << 16


class NoNotebook(Exception):
    """It didn't start: {why}."""


def command(address: str, port: int, token: str) -> str:
    """What is typed. The token goes by the environment, so that no list of processes shows it."""
    return (
        f"stty -echo; JUPYTER_TOKEN={token} exec python -m jupyterlab --no-browser --allow-root"
        f" --ServerApp.ip={address} --ServerApp.port={port} --ServerApp.port_retries=0"
        ' --ServerApp.root_dir="$HOME" --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate'
        " --LabApp.news_url=None\n"
    )


async def serve(
    address: str,
    token: bytes,
    ready: Callable[[str], None],
    told: Callable[[bytes], object],
    port: int = NOTEBOOK_PORT,
) -> int:
    """A notebook on the machine at `address`, until it ends or this is cancelled.

    Args:
        token: of the lease.
        ready: hears the address for a browser on the renter's machine, with the key in it.
        told: hears what it prints from then on.

    Returns:
        its exit code.

    Raises:
        NoShell, NoNotebook.
    """
    key = secrets.token_hex(24)
    said, is_ready = bytearray(), False
    async with await Terminal.open(address, token) as terminal:
        terminal.write(command(address, port, key).encode())
        answers, shown = asyncio.create_task(_answers(address, port)), asyncio.create_task(terminal.show())
        try:
            while not (shown.done() and not shown.result()):
                await asyncio.wait(
                    {shown} if is_ready else {shown, answers}, return_when=asyncio.FIRST_COMPLETED
                )
                if shown.done() and (data := shown.result()):
                    if is_ready:
                        told(data)
                    else:
                        said += data[: MOST_SAID - len(said)]
                    shown = asyncio.create_task(terminal.show())
                if answers.done() and not is_ready:
                    if not answers.result():
                        raise NoNotebook(f"nothing answers at {address}:{port} after {STARTS_S:.0f} s")
                    is_ready = True
                    ready(f"http://{address}:{port}/lab?token={key}")
        finally:
            shown.cancel()
            answers.cancel()
    if not is_ready:
        raise NoNotebook(bytes(said).decode(errors="replace").replace(key, "…").strip()[-500:])
    assert terminal.code is not None
    return terminal.code


async def _answers(address: str, port: int) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STARTS_S):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(address, port)
                    writer.close()
                    return True
                await asyncio.sleep(LOOK_S)
    return False
