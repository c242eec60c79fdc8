"""NVIDIA's cards as the driver's own program tells of them (`nvidia-smi -q -x`), and which of them may be lent.

The one listing says all of a card at one time: who it is, which device file is its, who uses it, and how warm it is.
"""

# The text comes from the driver's own program on this machine, never from a stranger.
import re
import xml.etree.ElementTree as ET
from collections.abc import Container, Iterable, Sequence

import msgspec

from clusterai.work.cluster.core.foreign import ANYBODY, Sample, descends

MOST_BYTES = 8 << 20
MiB = 1 << 20
IDLE_BYTES = 512 * MiB
"""More than a driver takes for itself on a card that nobody uses."""


class User(msgspec.Struct, frozen=True):
    """A process that holds memory on a card."""

    pid: int
    name: str
    used_bytes: int


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """One card.

    Attributes:
        index: as the driver counts.
        minor: of /dev/nvidia…; None where the driver doesn't tell.
        bus: its place on the PCI bus, as folders of /proc and /sys spell it.
        is_split: parts of it are lent out as cards of their own (MIG).
        percent, celsius, watts: None where the card doesn't tell.
    """

    index: int
    uuid: str
    name: str
    minor: int | None
    bus: str
    driver: str
    memory_bytes: int
    used_bytes: int
    is_split: bool
    users: tuple[User, ...]
    percent: float | None = None
    celsius: float | None = None
    watts: float | None = None

    def __str__(self) -> str:
        return f"card {self.index} ({self.name}, {self.uuid[:12]})"


class Nonsense(ValueError):
    """The driver's program said something else than what was asked: {why}."""


def parsed(said: bytes) -> tuple[Card, ...]:
    """
    Raises:
        Nonsense.
    """
    if len(said) > MOST_BYTES:
        raise Nonsense(f"{len(said)} bytes")
    try:
        root = ET.fromstring(said)  # noqa: S314
    except ET.ParseError as error:
        raise Nonsense(str(error)) from None
    driver = _text(root, "driver_version")
    return tuple(_card(at, it, driver) for at, it in enumerate(root.findall("gpu")))


def _card(index: int, it: ET.Element, driver: str) -> Card:
    uuid, minor = _text(it, "uuid"), _text(it, "minor_number")
    if not uuid:
        raise Nonsense(f"its card {index} has no UUID")
    return Card(
        index=index,
        uuid=uuid,
        name=_text(it, "product_name"),
        minor=int(minor) if minor.isdecimal() else None,
        bus=_bus(it.get("id") or ""),
        driver=driver,
        memory_bytes=_bytes(_text(it, "fb_memory_usage/total")),
        used_bytes=_bytes(_text(it, "fb_memory_usage/used")),
        is_split=_text(it, "mig_mode/current_mig") == "Enabled",
        users=tuple(_users(it)),
        percent=_number(_text(it, "utilization/gpu_util")),
        celsius=_number(_text(it, "temperature/gpu_temp")),
        watts=next(
            (
                found
                for name in (
                    "gpu_power_readings/instant_power_draw",
                    "gpu_power_readings/power_draw",
                    "power_readings/power_draw",
                )
                if (found := _number(_text(it, name))) is not None
            ),
            None,
        ),
    )


def _users(it: ET.Element) -> Iterable[User]:
    for process in it.findall("processes/process_info"):
        pid = _text(process, "pid")
        if pid.isdecimal():
            name = _text(process, "process_name").rpartition("/")[2].split(" ")[0]
            yield User(int(pid), name[:15], _bytes(_text(process, "used_memory")))


def _text(it: ET.Element, path: str) -> str:
    return (it.findtext(path) or "").strip()


def _number(text: str) -> float | None:
    """Of `37 C`; None of `N/A`."""
    try:
        return float(text.split(" ")[0])
    except ValueError:
        return None


def _bytes(text: str) -> int:
    """Of `15360 MiB`; 0 of `N/A`."""
    return int((_number(text) or 0.0) * MiB)


def _bus(name: str) -> str:
    """The driver's program writes eight digits of a domain, the kernel four: `00000000:01:00.0` is `0000:01:00.0`."""
    return name.lower()[4:] if len(name) == 16 else name.lower()


def lent(cards: Sequence[Card], named: Sequence[str], count: int) -> tuple[Card, ...]:
    """Which of a machine's cards its owner lends: those that were named, else the first so many.

    Args:
        named: UUIDs, or the beginnings of them, or the driver's numbers.
    """
    if not named:
        return tuple(cards[:count])
    return tuple(it for it in cards if is_named(it.index, it.uuid, named))


def is_named(index: int, uuid: str, named: Iterable[str]) -> bool:
    return any(
        name == str(index) or (len(name) >= 8 and uuid.lower().startswith(name.lower())) for name in named
    )


def class_of(name: str) -> str:
    """What renters ask for: `NVIDIA H100 80GB HBM3` is `h100`, `NVIDIA GeForce RTX 4090` is `rtx4090`."""
    before = ""
    for word in re.findall(r"[a-z0-9]+", name.lower()):
        if any(letter.isdigit() for letter in word):
            return f"{before}{word}"[:32] if word.isdigit() else word[:32]
        before = word
    return before[:32]


def unfit(card: Card, ours: Container[int] = ()) -> str | None:
    """Why a card can't be handed over as it is: whole, and with nothing of anybody else on it.

    Args:
        ours: processes that are ours, and about to leave it.
    """
    if card.is_split:
        return f"{card} is split into parts (MIG), and only whole ones are lent: nvidia-smi -i {card.index} -mig 0"
    if card.users:
        others = [it for it in card.users if it.pid not in ours]
        if not others:
            return None
        user = others[0]
        return f"{card} is used by {user.name} (process {user.pid}): end it, or lend another card"
    if card.used_bytes > IDLE_BYTES:
        held = card.used_bytes // MiB
        return f"{held} MiB of {card} are in use, and the driver doesn't say by whom: nvidia-smi -i {card.index} --gpu-reset"
    return None


def intruders(
    cards: Iterable[Card], mine: Iterable[str], now: Sequence[Sample], ours: set[int], allowed: frozenset[str]
) -> tuple[Sample, ...]:
    """Processes on the rented cards that are neither the tenant's nor on the owner's list. Whoever holds memory there is on them.

    Args:
        mine: UUIDs of the rented ones.
        now: all of the machine's processes as we see them. One that isn't among them is over, or of another namespace where our
            tenant's could be too: it isn't held against anybody.
    """
    if ANYBODY in allowed:
        return ()
    rented, parents = set(mine), {it.pid: it.parent for it in now}
    known = {it.pid: it for it in now}
    found: dict[int, Sample] = {}
    for card in cards:
        for user in card.users if card.uuid in rented else ():
            if user.name not in allowed and not descends(user.pid, parents, ours):
                seen = known.get(user.pid)
                if seen is not None and seen.name not in allowed:
                    found[user.pid] = seen
    return tuple(found.values())


def telling(card: Card) -> str:
    """One line of how a card stands."""
    parts = [f"{card.used_bytes // MiB} of {card.memory_bytes // MiB} MiB used"]
    parts += [f"{card.percent:.0f} % busy"] if card.percent is not None else []
    parts += [f"{card.celsius:.0f} °C"] if card.celsius is not None else []
    parts += [f"{card.watts:.0f} W"] if card.watts is not None else []
    return f"{card}: {', '.join(parts)}"
