"""What rented machines may not do: begin anything with the renter's own machine.

The mesh is a network between strangers. Answers to what began here pass; what begins there, and what would go on into the networks behind this
machine, is dropped where the mesh comes in.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Sequence

RULES = (
    ("INPUT", ("-m", "conntrack", "--ctstate", "NEW,INVALID")),
    ("FORWARD", ()),
)
SETS_S = 5.0


class NoWall(Exception):
    """This machine's packet filter can't be set; the message says what is missing and what to do."""


async def raise_wall(interface: str, enter: Sequence[str] = ()) -> None:
    """Before the interface has an address.

    Args:
        enter: a command line that runs another in the interface's network.

    Raises:
        NoWall.
    """
    program = shutil.which("iptables")
    if program is None:
        raise NoWall("iptables isn't installed: apt-get install iptables")
    for chain, match in RULES:
        code, said = await _run([*enter, program, "-w", "-I", chain, "-i", interface, *match, "-j", "DROP"])
        if code:
            raise NoWall(f"iptables refused a rule for {interface}: {said or code}")


async def lower_wall(interface: str, enter: Sequence[str] = ()) -> None:
    """Nothing of it is left, also where it was raised twice; and nothing happens where there is none."""
    program = shutil.which("iptables")
    for chain, match in RULES if program is not None else ():
        rule = [*enter, str(program), "-w", "-D", chain, "-i", interface, *match, "-j", "DROP"]
        for _ in range(8):
            if (await _run(rule))[0]:
                break


async def _run(command: Sequence[str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SETS_S):
            _, said = await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return 1, "too slow"
    assert process.returncode is not None
    return process.returncode, said.decode(errors="replace").strip()[-200:]
