"""The keeper from a command's side: started in a session of its own, waited for, ended."""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.local.folder import tail
from clusterai.cli.renting.folder import KeeperState, RentalFolder
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import BadId, address, hex0x
from clusterai.protocol.statements import network_domain
from clusterai.sdk import Client

LOOK_S = 0.05
NAMESPACES = Path("/var/run/netns")
STARTS_S = 30.0
CONNECTS_S = 15.0
ENDS_S = 10.0
FAILED = ("failed", "forged", "over")


def on_linux() -> None:
    """
    Raises:
        Failure: this system has no end of a mesh.
    """
    if platform.system() != "Linux":
        raise Failure(
            "this machine can't join the cluster's private network",
            "the renter's end of it runs on Linux alone",
            "--no-mesh rents without it; then from Linux, or WSL 2 on Windows: clusterai rent connect ID",
        )


def able() -> None:
    """
    Raises:
        Failure: this machine can't be an end of a mesh, and what cures it.
    """
    on_linux()
    from clusterai.cli.renting import keeper  # loads what only Linux has

    if (found := keeper.missing()) is None:
        return
    why, cure = found
    other = "--no-mesh rents without it, and jobs are submitted from a machine that can: clusterai rent connect ID"
    raise Failure(
        "this machine can't join the cluster's private network",
        why,
        f"{'run the same with ' if cure.startswith('sudo') else ''}{cure}\n        or {other}"
        if cure
        else other,
    )


def namespace_of(name: str | None) -> str:
    """The path of a named network namespace; empty for this machine's own.

    Raises:
        Failure: there is none of that name.
    """
    if name is None:
        return ""
    path = NAMESPACES / name
    if not name or "/" in name or name in (".", "..") or not path.exists():
        raise Failure(f"there is no network namespace {name[:60]!r}", "", "ip netns add NAME", Exit.USAGE)
    return str(path)


class _Manifest(msgspec.Struct):
    chain_id: int
    contracts: dict[str, str]


def domain_of(client: Client) -> Domain:
    """Under which this network's machines sign. A false one would make every honest signature false: nothing is gained by it.

    Raises:
        Failure: the gateway's manifest can't be read.
    """
    try:
        found = msgspec.json.decode(bytes(client.network().manifest), type=_Manifest)
        return network_domain(found.chain_id, address(found.contracts["registry"]))
    except (msgspec.MsgspecError, KeyError, BadId) as error:
        raise Failure("the gateway's network.json can't be used", str(error)) from None


def start(folder: RentalFolder, data: Path | None, netns: str | None) -> None:
    """In a session of its own; nothing happens where one runs."""
    if folder.is_held():
        return
    folder.make()
    command = [sys.executable, "-m", "clusterai.cli", "rent", "connect", hex0x(folder.lease), "--foreground"]
    command += ["--data", str(data)] if data is not None else []
    command += ["--netns", netns] if netns is not None else []
    folder.forget_state()
    with folder.log.open("wb") as log:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def until(
    folder: RentalFolder,
    phases: tuple[str, ...],
    longest_s: float,
    pause: Callable[[float], None] = time.sleep,
) -> KeeperState | None:
    """Wait for one of these phases; None where it didn't come in time.

    Raises:
        Failure: it can't go on.
    """
    ends_s = time.monotonic() + longest_s
    while time.monotonic() < ends_s:
        state = folder.state()
        if state is not None and state.phase in phases:
            return state
        if state is not None and state.phase in FAILED:
            raise refused(folder, state)
        pause(LOOK_S)
    return None


def refused(folder: RentalFolder, state: KeeperState) -> Failure:
    named = hex0x(folder.lease)[:12]
    if state.phase == "forged":
        return Failure(
            "the gateway named a key that the plan's machine didn't sign: nothing was sent there",
            state.detail,
            f"clusterai rent release {named}, and rent through another gateway",
            Exit.UNTRUE,
        )
    return Failure(
        f"this end of rental {named}'s network is down",
        state.detail or "it said:\n" + tail(folder.log),
        f"clusterai rent connect {named}",
    )


def stop(folder: RentalFolder) -> bool:
    """End it and wait until nothing of it is left; whether one ran."""
    state = folder.state()
    if not folder.is_held() or state is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(state.pid, signal.SIGTERM)
    ends_s = time.monotonic() + ENDS_S
    while folder.is_held():
        if time.monotonic() > ends_s:
            raise Failure(f"the keeper (process {state.pid}) didn't end", "", f"kill {state.pid}")
        time.sleep(LOOK_S)
    return True
