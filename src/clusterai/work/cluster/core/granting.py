"""A rented machine's root with its cards in it: their device files, what of the driver isn't shown yet, and nothing of other cards."""

import re
from collections.abc import Sequence

import msgspec

from clusterai.sandbox.core.bubble import Bind, Root

FLAT = "/nvidia"
"""Where the driver's files are that lie outside of what is shown anyway."""
GPUS = "/proc/driver/nvidia/gpus"
LIBRARIES = (
    "libcuda.so",
    "libcudadebugger.so",
    "libnvidia-ml.so",
    "libnvidia-ptxjitcompiler.so",
    "libnvidia-nvvm.so",
    "libnvidia-nvvm70.so",
    "libnvidia-gpucomp.so",
    "libnvidia-opencl.so",
    "libnvidia-cfg.so",
    "libnvidia-allocator.so",
    "libnvidia-pkcs11.so",
    "libnvidia-pkcs11-openssl3.so",
    "libnvidia-sandboxutils.so",
    "libnvcuvid.so",
    "libnvidia-encode.so",
    "libnvidia-opticalflow.so",
)
"""Of the driver, what computing takes: NVIDIA's own list without what draws on screens."""
PROGRAMS = ("nvidia-smi", "nvidia-debugdump")
_VERSIONED = re.compile(r"(lib[\w.+-]*?\.so)\.[0-9.]+")


class Grant(msgspec.Struct, frozen=True):
    """What of the host makes some cards usable.

    Attributes:
        devices: (source, place).
        files: (source, place) of libraries and programs of the driver.
        buses: of each card.
        has_proc: the driver's folder of all cards is there, to be hidden.
        system: folders of /sys that the driver's libraries read of these cards.
        links: (target, place) of how they find the cards there.
    """

    count: int
    devices: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]
    buses: tuple[str, ...] = ()
    has_proc: bool = False
    system: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()


def is_wanted(name: str) -> bool:
    """Whether a file of the driver is for computing."""
    return name in PROGRAMS or name.partition(".so")[0] + ".so" in LIBRARIES


def in_cache(listing: str) -> tuple[tuple[str, str], ...]:
    """(place, place) of the driver's libraries in what `ldconfig -p` prints."""
    found = [line.rpartition(" => ")[2].strip() for line in listing.splitlines() if " => " in line]
    return tuple(dict.fromkeys((it, it) for it in found if is_wanted(it.rpartition("/")[2])))


def granted(root: Root, grant: Grant) -> Root:
    """CUDA and Ray count the cards that are there from 0: none but these are."""
    binds, links = list(root.binds), [*root.links, *grant.links]
    shown = [(it.source, it.dest) for it in root.binds]
    flat = False
    for source, place in grant.files:
        name = place.rpartition("/")[2]
        if not is_wanted(name) or any(_is_below(source, at) and at == to for at, to in shown):
            continue
        flat = True
        binds.append(Bind(source, f"{FLAT}/{name}"))
        if (library := _VERSIONED.fullmatch(name)) is not None:
            links += [(name, f"{FLAT}/{library.group(1)}.1"), (name, f"{FLAT}/{library.group(1)}")]
    taken = {it.dest for it in binds}
    binds += [Bind(it, it) for it in grant.system]
    env = dict(root.env) | {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(grant.count))),
    }
    if flat:
        env["LD_LIBRARY_PATH"] = FLAT
    return msgspec.structs.replace(
        root,
        binds=tuple(binds),
        links=tuple(dict.fromkeys(it for it in links if it[1] not in taken)),
        path=f"{root.path}:{FLAT}" if flat else root.path,
        env=env,
        devices=tuple(Bind(*it) for it in grant.devices),
        emptied=(GPUS,) if grant.has_proc else (),
        regained=tuple(Bind(f"{GPUS}/{it}", f"{GPUS}/{it}") for it in grant.buses) if grant.has_proc else (),
    )


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def same(minors: Sequence[int], told: Sequence[int | None]) -> bool:
    """Whether a specification's device files are those that the driver says, as far as it says."""
    return all(it is None or it == minor for minor, it in zip(minors, told, strict=True))
