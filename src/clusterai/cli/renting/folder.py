"""What a renter keeps of a rental, in the data folder:

DIR/rentals/ID/plan.json     which machines the plan named, so that a gateway can't put others behind their keys
DIR/rentals/ID/mesh.key      this end's WireGuard key of this lease; readable by the owner alone
DIR/rentals/ID/token         what opens Ray and the shell; readable by the owner alone
DIR/rentals/ID/keeper.json   how the keeper of this end of the mesh stands; keeper.lock is held (flock) while it runs
DIR/rentals/ID/keeper.log    what it printed
"""

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from clusterai.cli.local.folder import write_atomically
from clusterai.cli.lock import Lock
from clusterai.protocol.ids import Digest, hex0x

ID_DIGITS = 16
KeeperPhase = Literal["starting", "meshed", "connected", "failed", "forged", "over"]


class Planned(msgspec.Struct, frozen=True):
    """What was booked from here: the hot keys' addresses of the machines that the plan showed."""

    id: str
    nodes: tuple[str, ...]


class KeeperState(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes:
    phase: `connected` once the head answered over the mesh; `forged` where a key in it wasn't the plan's machine's.
    ways: by place, `direct`, `relay`, or `silent` where nothing was heard yet.
    """

    pid: int
    interface: str
    namespace: str
    phase: KeeperPhase
    detail: str = ""
    address: str = ""
    ways: dict[int, Literal["direct", "relay", "silent"]] = {}


class RentalFolder:
    """Of one rental."""

    def __init__(self, data: Path, lease: Digest) -> None:
        self.lease = lease
        self.path = data / "rentals" / lease.hex()[:ID_DIGITS]
        self.token, self.log = self.path / "token", self.path / "keeper.log"
        self._plan, self._key = self.path / "plan.json", self.path / "mesh.key"
        self._state, self._lock = self.path / "keeper.json", Lock(self.path / "keeper.lock")

    def make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)

    # --- the plan, the token, the key ---

    def plan(self) -> Planned | None:
        """None where it was booked elsewhere."""
        try:
            found = msgspec.json.decode(self._plan.read_bytes(), type=Planned)
        except (OSError, msgspec.MsgspecError):
            return None
        return found if found.id == hex0x(self.lease) else None

    def write_plan(self, nodes: tuple[str, ...]) -> None:
        self.make()
        write_atomically(self._plan, msgspec.json.encode(Planned(hex0x(self.lease), nodes)))

    def write_token(self, token: str) -> None:
        self.make()
        write_atomically(self.token, token.encode())

    def write_secret(self, secret: bytes) -> None:
        self.make()
        write_atomically(self._key, secret.hex().encode())

    def secret(self) -> bytes:
        """Of this end of the mesh; made where there is none."""
        try:
            found = bytes.fromhex(self._key.read_text())
        except (OSError, ValueError):
            found = b""
        if len(found) != 32:
            found = secrets.token_bytes(32)
            self.write_secret(found)
        return found

    # --- the keeper ---

    def state(self) -> KeeperState | None:
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=KeeperState)
        except (OSError, msgspec.MsgspecError):
            return None

    def write_state(self, state: KeeperState) -> None:
        write_atomically(self._state, msgspec.json.encode(state))

    def forget_state(self) -> None:
        self._state.unlink(missing_ok=True)

    def hold(self) -> bool:
        """Become the one keeper of this rental, until the process ends; False where another is."""
        self.make()
        return self._lock.take()

    def let_go(self) -> None:
        self._lock.let_go()

    def is_held(self) -> bool:
        """Whether a keeper runs."""
        return self._lock.is_held()

    def remove(self) -> None:
        """The rental is over: its key and its token are of no use to anybody."""
        shutil.rmtree(self.path, ignore_errors=True)


def unheld(data: Path) -> Iterator[KeeperState]:
    """What keepers said of themselves that run no more."""
    for path in (data / "rentals").glob("*/keeper.json"):
        try:
            state = msgspec.json.decode(path.read_bytes(), type=KeeperState)
            folder = RentalFolder(data, Digest(bytes.fromhex(path.parent.name.ljust(64, "0"))))
        except (OSError, ValueError, msgspec.MsgspecError):
            continue
        if not folder.is_held():
            yield state
