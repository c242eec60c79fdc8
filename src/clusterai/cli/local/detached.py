"""`clusterai up --detach`: the same `up` in a session of its own, waited for."""

import subprocess
import sys
import time

from clusterai.cli.failure import Failure
from clusterai.cli.local import ports
from clusterai.cli.local.folder import DataFolder, tail
from clusterai.cli.local.progress import Progress
from clusterai.cli.local.wish import READY_S, Wish, announce, ready


def run_detached(folder: DataFolder, wish: Wish, json: bool) -> None:
    """Start `up` in a session of its own and wait until it is ready."""
    folder.hold()
    folder.let_go()
    ports.check(wish.ports, str(folder.root))
    folder.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "clusterai.cli", "up", "--quiet", "--data", str(folder.root)]
    command += [
        "--port",
        str(wish.ports.api),
        "--nodes",
        str(wish.nodes),
        "--model",
        wish.model,
        "--window",
        str(wish.window_s),
    ]
    command += ["--validators", str(len(wish.ports.validators)), *(["--rent"] if wish.rent else [])]
    command += [word for vault in wish.vaults for word in ("--vault", vault)]
    command += ["--host", wish.ports.host] if wish.ports.is_open else []
    command += ["--tls-certificate", wish.tls[0], "--tls-key", wish.tls[1]] if wish.tls else []
    with folder.log.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    ends_s = time.monotonic() + READY_S
    with Progress() as progress:
        while True:
            state = folder.state()
            mine = state if state is not None and state.pid == process.pid else None
            if mine and mine.phase == "ready":
                break
            if process.poll() is not None:
                raise Failure(
                    "the network didn't start", "it said:\n" + tail(folder.log), f"read {folder.log}"
                )
            if time.monotonic() > ends_s:
                process.terminate()
                raise Failure(f"not ready after {READY_S:.0f} s", next=f"read {folder.log}")
            if mine:
                progress.show(mine.doing)
            time.sleep(0.05)
    announce(ready(folder, wish, mine.ready_after_s or 0.0, mine.barred), json, detached=True)
