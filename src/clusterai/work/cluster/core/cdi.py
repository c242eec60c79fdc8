"""What `nvidia-ctk cdi generate` wrote of a machine's cards: which device files and which of the driver's own files belong to them.

The Container Device Interface (https://github.com/cncf-tags/container-device-interface) is what container engines read; we read it as
they do, and take less: no sockets of the host's daemons, no display, no hooks. A specification is its owner's, so it is believed as far as
the tenant's side goes: only the device files named here and plain files are ever shown.
"""

import re
from collections.abc import Sequence

import msgspec
import yaml

KIND = "nvidia.com/gpu"
MOST_BYTES = 4 << 20
CARD = re.compile(r"/dev/nvidia([0-9]{1,3})")
SHARED = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
"""Of the driver, whichever card is used. Without its own file none of the others opens a card."""


class Node(msgspec.Struct, frozen=True, rename="camel"):
    """`host_path` is `path` where it isn't said."""

    path: str
    host_path: str = ""

    @property
    def source(self) -> str:
        return self.host_path or self.path


class Mount(msgspec.Struct, frozen=True, rename="camel"):
    host_path: str
    container_path: str


class Edits(msgspec.Struct, frozen=True, rename="camel"):
    device_nodes: tuple[Node, ...] = ()
    mounts: tuple[Mount, ...] = ()


class Device(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    container_edits: Edits = Edits()


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    kind: str
    devices: tuple[Device, ...] = ()
    container_edits: Edits = Edits()


class BadSpec(ValueError):
    """This is no CDI specification: {why}."""


def read(raw: bytes) -> Spec | None:
    """YAML or JSON, which is YAML; None where it is of another vendor's devices.

    Raises:
        BadSpec.
    """
    if len(raw) > MOST_BYTES:
        raise BadSpec(f"it has {len(raw)} bytes")
    try:
        spec = msgspec.convert(yaml.safe_load(raw), Spec, strict=False)
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
        raise BadSpec(" ".join(str(error).split())[:200]) from None
    return spec if spec.kind == KIND else None


class Wanted(msgspec.Struct, frozen=True):
    """Of some cards: (source, place) of device files and of the driver's files, and the cards' own minors in the same order."""

    devices: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]
    minors: tuple[int, ...]


def wanted(spec: Spec, cards: Sequence[tuple[str, int]]) -> Wanted:
    """
    Args:
        cards: UUID and number of each.

    Raises:
        BadSpec: it doesn't know one of them.
    """
    by_name = {it.name: it.container_edits for it in spec.devices}
    parts: list[Edits] = []
    minors: list[int] = []
    for uuid, index in cards:
        found = by_name.get(uuid) or by_name.get(str(index)) or by_name.get(f"gpu{index}")
        if found is None:
            raise BadSpec(f"it doesn't name card {index} ({uuid})")
        own = [hit for it in found.device_nodes if (hit := CARD.fullmatch(it.path))]
        if len(own) != 1:
            raise BadSpec(f"card {index} has {len(own)} device files in it")
        minors.append(int(own[0].group(1)))
        parts.append(found)
    nodes = [it for edits in (*parts, spec.container_edits) for it in edits.device_nodes]
    files = [it for edits in (*parts, spec.container_edits) for it in edits.mounts]
    mine = {f"/dev/nvidia{minor}" for minor in minors} | set(SHARED)
    return Wanted(
        tuple(dict.fromkeys((it.source, it.path) for it in nodes if it.path in mine)),
        tuple(dict.fromkeys((it.host_path, it.container_path) for it in files)),
        tuple(minors),
    )
