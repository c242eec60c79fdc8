"""What a base root file system is, as a digest: two machines on which native programs may be expected to do the same.

Processor, libraries and packages are described, not hashed file by file: a base has gigabytes. So the digest tells honest
machines apart that would not agree; a provider that lies about it only risks its own stake.
"""

import platform
from importlib.metadata import distributions
from importlib.resources import files
from pathlib import Path

import msgspec
from blake3 import blake3

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.work.batch.core import pinned

INSIDE = ("clusterai_job.py", "sitecustomize.py")
_PROCESSOR = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU part", "Features")


class Base(msgspec.Struct, frozen=True, array_like=True, tag="base.1"):
    """Attributes:
    processor: what libraries choose their code by: maker, model, instruction sets.
    packages: `name==version`, sorted.
    enter: digest of what we run around the program.
    """

    name: str
    machine: str
    processor: bytes
    libc: str
    python: str
    packages: tuple[str, ...]
    enter: bytes

    def digest(self) -> Digest:
        return canonical.digest(self)


def inside() -> dict[str, bytes]:
    """The helper modules that a job finds in /job/in/lib."""
    folder = files("clusterai.work.batch.inside")
    return {name: (folder / name).read_bytes() for name in INSIDE}


def host_base(name: str = "python") -> Base:
    """This machine's own, as `sandbox.host_python` offers it."""
    packages = sorted({f"{it.metadata['Name'].lower()}=={it.version}" for it in distributions()})
    enter = blake3(pinned.ENTER.encode())
    for content in inside().values():
        enter.update(content)
    return Base(
        name=name,
        machine=platform.machine(),
        processor=blake3("\n".join(_processor()).encode()).digest(),
        libc=" ".join(platform.libc_ver()),
        python=platform.python_version(),
        packages=tuple(packages),
        enter=enter.digest(),
    )


def _processor() -> list[str]:
    """Of the first core; a machine of unlike cores is none of a class."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return [platform.processor()]
    lines = text.split("\n\n", 1)[0].splitlines()
    return [line for line in lines if line.split(":")[0].strip() in _PROCESSOR]
