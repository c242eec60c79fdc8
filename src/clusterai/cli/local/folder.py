"""The data folder of a network on one machine: where everything lies, who holds it, and what runs.

DIR/network.json       the chain's and the contracts' addresses and rules
DIR/keys/NAME.key      secrets, readable by the owner alone
DIR/account.json       the account that `up` made, with its API key; readable by the owner alone
DIR/up.lock            held (flock) by the one `up` that runs here
DIR/up.json            what that `up` started: rewritten whenever it changes
DIR/chain, gateway, node-1, …, validator    each daemon's config.json, log and journal
"""

import os
from pathlib import Path
from typing import Literal

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.lock import Lock

State = Literal["starting", "ready", "restarting", "stopped", "failed"]

CHEAT = "cheat.json"


class ServiceState(msgspec.Struct, frozen=True):
    name: str
    kind: str
    state: State
    pid: int | None
    restarts: int
    since_s: float
    url: str = ""
    last_error: str = ""


class UpState(msgspec.Struct, frozen=True):
    """What `up` says of itself. `phase` is `starting` until every node serves every model."""

    pid: int
    phase: Literal["starting", "ready", "stopping"]
    started_s: float
    gateway: str
    chain: str
    model: str
    services: tuple[ServiceState, ...]
    ready_after_s: float | None = None
    doing: str = ""
    """what it waits for, for people"""
    barred: tuple[str, ...] = ()
    """nodes that were convicted: nobody gives them work"""


class LocalAccount(msgspec.Struct, frozen=True):
    """The account that `up` opens at its gateway, and the key to spend from it."""

    account: str
    key: str


class Cheat(msgspec.Struct, frozen=True):
    """A node that the demonstration made cheat: the name of the weights that it serves instead, or `lies` about jobs."""

    weights: str = ""
    lies: bool = False


def node_name(at: int) -> str:
    return f"node-{at + 1}"


def validator_name(at: int) -> str:
    """The first has the name that it has where it is alone."""
    return f"validator-{at + 1}" if at else "validator"


class DataFolder:
    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self.manifest = self.root / "network.json"
        self.keys = self.root / "keys"
        self.account = self.root / "account.json"
        self.log = self.root / "up.log"
        self._state = self.root / "up.json"
        self._lock = Lock(self.root / "up.lock")

    def of(self, service: str) -> Path:
        return self.root / service

    def log_of(self, service: str) -> Path:
        return self.root / service / "log"

    def cheat_of(self, node: str) -> Cheat | None:
        try:
            return msgspec.json.decode((self.of(node) / CHEAT).read_bytes(), type=Cheat)
        except FileNotFoundError:
            return None

    # --- who holds it ---

    def hold(self) -> None:
        """Become the one `up` of this folder, until the process ends.

        Raises:
            Failure: another one is.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._lock.take():
            state = self.state()
            raise Failure(
                f"a network already runs in {self.root}",
                f"process {state.pid} holds it" if state else "another process holds its lock",
                f"clusterai status --data {self.root}, or clusterai down --data {self.root}",
                Exit.BUSY,
            )

    def let_go(self) -> None:
        if self._lock.is_ours:
            self._state.unlink(missing_ok=True)
            self._lock.let_go()

    def is_held(self) -> bool:
        """Whether an `up` runs here."""
        return self._lock.is_held()

    # --- what runs ---

    def state(self) -> UpState | None:
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=UpState)
        except (OSError, msgspec.MsgspecError):
            return None

    def write_state(self, state: UpState) -> None:
        write_atomically(self._state, msgspec.json.encode(state))

    def running(self) -> UpState:
        """What runs here.

        Raises:
            Failure: nothing does.
        """
        state = self.state() if self.is_held() else None
        if state is None:
            raise Failure(
                f"no network runs in {self.root}",
                next=f"clusterai up --data {self.root}",
                code=Exit.NOT_RUNNING,
            )
        return state

    def local_account(self) -> LocalAccount:
        try:
            return msgspec.json.decode(self.account.read_bytes(), type=LocalAccount)
        except FileNotFoundError:
            raise Failure(
                f"{self.root} has no account yet",
                "it is made by the first `up`",
                f"clusterai up --data {self.root}",
                Exit.NOT_RUNNING,
            ) from None


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """A reader sees the old content or the new one, never half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def tail(path: Path, lines: int = 12) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            found = file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return "    (no log)"
    return "\n".join(f"    {line}" for line in found)
