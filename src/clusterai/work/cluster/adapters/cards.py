"""The machine's cards as stays take them: whole, clean, one stay each, and watched while they are lent.

    nvidia-smi -q -x ──> which there are, who uses them        /etc/cdi, /var/run/cdi, else ldconfig ──> what a sandbox is shown of them

A card that is lent is locked by a file of the machine's, so that two nodes on it can't both have it; the kernel lets go of a dead node's. The
driver's program runs as a child with a deadline: a driver that hangs hangs nothing else.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from clusterai.runtime.adapters import filelock
from clusterai.sandbox import Root
from clusterai.work.cluster.adapters.processes import sample
from clusterai.work.cluster.core import cdi, granting
from clusterai.work.cluster.core.cards import Card, Nonsense, lent, parsed, unfit
from clusterai.work.cluster.core.foreign import descends
from clusterai.work.cluster.core.granting import Grant

ASK_S = 15.0
CLEAN_S = 10.0
CDI = (Path("/etc/cdi"), Path("/var/run/cdi"))
LOCKS = Path("/run/lock")
PROC_GPUS = Path(granting.GPUS)
PCI = Path("/sys/bus/pci/devices")
PROCESSORS = ("/sys/devices/system/cpu", "/sys/devices/system/node")
CURE_CDI = "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"


class NoCards(Exception):
    """The cards can't be lent: {why}."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def found() -> tuple[Card, ...]:
    """All cards of the machine, as they stand.

    Raises:
        NoCards: there is no driver, or it doesn't answer.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        raise NoCards("nvidia-smi isn't installed: apt-get install nvidia-utils, of the driver's own version")
    try:
        done = subprocess.run([program, "-q", "-x"], capture_output=True, timeout=ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoCards(f"the driver doesn't answer: {error}") from None
    if done.returncode:
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()[:300]
        raise NoCards(said or f"nvidia-smi ended with {done.returncode}")
    try:
        return parsed(done.stdout)
    except Nonsense as error:
        raise NoCards(f"nvidia-smi said something else than what was asked: {error}") from None


def spec(folders: Sequence[Path] = CDI) -> cdi.Spec | None:
    """The last of NVIDIA's in these folders; None where there is none.

    Raises:
        NoCards: one that can't be read.
    """
    last: cdi.Spec | None = None
    for folder in folders:
        for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml"), *folder.glob("*.json")]):
            try:
                last = cdi.read(path.read_bytes()) or last
            except (OSError, cdi.BadSpec) as error:
                # Of another vendor's it is no concern of ours.
                if "nvidia" in path.name:
                    raise NoCards(f"{path}: {error}; make it anew: {CURE_CDI}") from None
    return last


class Taken:
    """Cards that are one stay's, until `give_back`."""

    def __init__(self, cards: tuple[Card, ...], grant: Grant, locks: list[int]) -> None:
        self.cards = cards
        self._grant, self._locks = grant, locks

    @property
    def uuids(self) -> frozenset[str]:
        return frozenset(it.uuid for it in self.cards)

    def root(self, root: Root) -> Root:
        """With these cards in it, and no others."""
        return granting.granted(root, self._grant)

    def give_back(self, most_s: float = CLEAN_S) -> str:
        """Once nothing of the tenant's is on them, or not within this time: then who comes next is refused them.

        Returns:
            what is still on them; nothing, as it should be.
        """
        until_s = time.monotonic() + most_s
        try:
            while True:
                try:
                    left = [why for it in found() if it.uuid in self.uuids and (why := unfit(it))]
                except NoCards as error:
                    return error.why
                if not left or time.monotonic() >= until_s:
                    return "; ".join(left)
                time.sleep(0.2)
        finally:
            for descriptor in self._locks:
                os.close(descriptor)
            self._locks = []


class Cards:
    """What this node lends of them.

    Args:
        named: UUIDs, or the beginnings of them, or the driver's numbers; the first `count` where none are.
    """

    def __init__(
        self, named: Sequence[str], count: int, specs: Sequence[Path] = CDI, locks: Path = LOCKS
    ) -> None:
        self._named, self._count, self._specs, self._locks = tuple(named), count, specs, locks

    def why_not(self, *, busy: bool) -> str:
        """Why what is offered can't be had; nothing where it can.

        Args:
            busy: somebody rents them now, so that they are in use.
        """
        if self._count == 0:
            return ""
        try:
            mine = lent(found(), self._named, self._count)
            if len(mine) < self._count:
                return f"{self._count} GPUs are offered, the driver finds {len(mine)}"
            if not busy:
                self._granted(mine)
                ours = _ours(mine)
                return "; ".join(why for it in mine if (why := unfit(it, ours)))
        except NoCards as error:
            return error.why
        return ""

    def take(self, count: int) -> Taken:
        """
        Raises:
            NoCards.
        """
        mine = lent(found(), self._named, self._count)
        ours = _ours(mine)
        chosen: list[Card] = []
        locks: list[int] = []
        reasons: list[str] = []
        try:
            for card in mine:
                if len(chosen) == count:
                    break
                if (why := unfit(card, ours)) is not None:
                    reasons.append(why)
                elif (lock := self._lock(card)) is None:
                    reasons.append(f"{card} is rented to somebody else")
                else:
                    locks.append(lock)
                    chosen.append(card)
            if len(chosen) < count:
                said = "; ".join(reasons) or f"the driver finds {len(mine)} of those that are lent"
                raise NoCards(f"{count} cards are asked for, {len(chosen)} can be had: {said}")
            return Taken(tuple(chosen), self._granted(chosen), locks)
        except BaseException:
            for descriptor in locks:
                os.close(descriptor)
            raise

    def _lock(self, card: Card) -> int | None:
        folder = self._locks if self._locks.is_dir() else Path(tempfile.gettempdir())
        path = folder / f"clusterai-{card.uuid.replace('/', '-')}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise NoCards(f"{card} can't be locked: {path}: {error.strerror}") from None
        if not filelock.hold(descriptor):
            os.close(descriptor)
            return None
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, 0o666)
        return descriptor

    def _granted(self, cards: Sequence[Card]) -> Grant:
        """
        Raises:
            NoCards: a device file is missing, or not to be opened by tenants.
        """
        devices, files = self._of_spec(cards) or _of_machine(cards)
        for source, _ in devices:
            path = Path(source)
            if not path.is_char_device():
                raise NoCards(f"{path} isn't there: nvidia-modprobe -u -c=0 makes the driver's device files")
            if path.stat().st_mode & 0o006 != 0o006:
                raise NoCards(
                    f"{path} is kept from other users, and tenants have one of their own: chmod 666 {path}"
                )
        buses = tuple(it.bus for it in cards)
        return Grant(
            count=len(cards),
            devices=devices,
            files=tuple(it for it in files if Path(it[0]).is_file()),
            buses=tuple(it for it in buses if (PROC_GPUS / it).is_dir()),
            has_proc=PROC_GPUS.is_dir(),
            system=_system(buses),
            links=tuple((str((PCI / it).resolve()), str(PCI / it)) for it in buses if (PCI / it).exists()),
        )

    def _of_spec(
        self, cards: Sequence[Card]
    ) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] | None:
        made = spec(self._specs)
        if made is None:
            return None
        try:
            wanted = cdi.wanted(made, [(it.uuid, it.index) for it in cards])
        except cdi.BadSpec as error:
            raise NoCards(
                f"the CDI specification is of another machine, or old: {error}; {CURE_CDI}"
            ) from None
        if not granting.same(wanted.minors, [it.minor for it in cards]):
            raise NoCards(
                f"the CDI specification names other device files than the driver, so it is old: {CURE_CDI}"
            )
        return wanted.devices, wanted.files


def _ours(cards: Sequence[Card]) -> set[int]:
    """Of their users those that this node started: what answers a validator's test, and ends by itself."""
    parents = {it.pid: it.parent for it in sample()}
    users = {user.pid for card in cards for user in card.users}
    return {it for it in users if descends(it, parents, {os.getpid()})}


def _of_machine(cards: Sequence[Card]) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Without a specification: the driver's minors, and the system's own cache of libraries."""
    unknown = [it for it in cards if it.minor is None]
    if unknown:
        raise NoCards(f"the driver doesn't say which device file is {unknown[0]}: {CURE_CDI}")
    shared = [it for it in cdi.SHARED if Path(it).exists() or it != "/dev/nvidia-uvm-tools"]
    places = [*(f"/dev/nvidia{it.minor}" for it in cards), *shared]
    program = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    files: tuple[tuple[str, str], ...] = ()
    if program is not None:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run([program, "-p"], capture_output=True, text=True, timeout=ASK_S, check=False)
            files = granting.in_cache(done.stdout)
    programs = [path for it in granting.PROGRAMS if (path := shutil.which(it)) is not None]
    return tuple((it, it) for it in places), (*files, *((it, it) for it in programs))


def _system(buses: Sequence[str]) -> tuple[str, ...]:
    """Of the rented cards and of the processors near them; nothing in it can be written by a tenant's user."""
    places = [str((PCI / it).resolve()) for it in buses if (PCI / it).exists()]
    return (*places, *(it for it in PROCESSORS if Path(it).is_dir())) if places else ()
