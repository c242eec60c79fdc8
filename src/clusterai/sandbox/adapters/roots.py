"""A root file system out of a tar in the store, unpacked without trusting it.

A tar can name `../x`, write through a link that it made a moment before, and hold devices. So each part of each name is
opened by descriptor with O_NOFOLLOW, from the root that is being made: there is no path that could be bent. Links keep
their target as text; it means something only inside the sandbox. Devices, pipes and setuid bits are left out.
"""

import contextlib
import io
import os
import shutil
import tarfile
from collections.abc import Generator, Iterator
from pathlib import Path

from clusterai.protocol.ids import Digest
from clusterai.sandbox.adapters.store import BlobStore
from clusterai.sandbox.core.bubble import OURS, Bind, Root

MOST_BYTES = 16 << 30
MOST_ENTRIES = 1_000_000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class BadRoot(ValueError):
    """This tar is no root file system: {why}."""

    def __init__(self, why: str) -> None:
        super().__init__(f"this tar is no root file system: {why}")


def unpack(store: BlobStore, digest: Digest, folder: Path) -> Root:
    """The root of a tar, unpacked once and kept.

    Raises: NoSuchBlob, Damaged, BadRoot.
    """
    place = folder / digest.hex()
    if not place.is_dir():
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        aside = folder / f"new-{os.getpid()}-{os.urandom(6).hex()}"
        aside.mkdir(mode=0o755)
        try:
            _extract(store, digest, aside)
            with contextlib.suppress(OSError):  # Somebody else was as fast.
                aside.rename(place)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return shown(place, f"blake3:{digest.hex()}")


def shown(folder: Path, name: str) -> Root:
    """A folder's entries as a root, but for those that we make ourselves."""
    binds: list[Bind] = []
    links: list[tuple[str, str]] = []
    for entry in sorted(folder.iterdir()):
        if entry.name in OURS:
            continue
        if entry.is_symlink():
            links.append((str(entry.readlink()), f"/{entry.name}"))
        else:
            binds.append(Bind(str(entry), f"/{entry.name}"))
    etc, passwd = folder / "etc", folder / "etc" / "passwd"
    # A link there would be followed while the walls are built, when it could still lead to the host.
    plain = not etc.is_symlink() and not passwd.is_symlink() and passwd.is_file()
    names = not os.path.lexists(etc) or plain
    return Root(name=name, binds=tuple(binds), links=tuple(links), names=names)


class _Stream(io.RawIOBase):
    """A blob as a file for tarfile."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._held = chunks, b""

    def read(self, size: int = -1) -> bytes:
        while len(self._held) < size and (chunk := next(self._chunks, b"")):
            self._held += chunk
        made, self._held = self._held[:size], self._held[size:]
        return made


def _extract(store: BlobStore, digest: Digest, folder: Path) -> None:
    root = os.open(folder, _FOLDER)
    left, entries = MOST_BYTES, 0
    try:
        with tarfile.open(fileobj=_Stream(store.stream(digest)), mode="r|") as archive:
            for member in archive:
                left, entries = left - member.size, entries + 1
                if left < 0 or entries > MOST_ENTRIES:
                    raise BadRoot(f"it holds more than {MOST_BYTES} bytes or {MOST_ENTRIES} entries")
                _place(archive, member, root)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BadRoot(str(error)) from None
    finally:
        os.close(root)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name or len(parts) > 64:
        raise BadRoot(f"a name leads out of it: {name[:80]!r}")
    return parts


@contextlib.contextmanager
def _inside(root: int, parts: list[str], *, make: bool = False) -> Generator[int]:
    """The folder at `parts`, reached without following any link."""
    at = os.dup(root)
    try:
        for part in parts:
            made = False
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=at)
                    made = True
            below = os.open(part, _FOLDER, dir_fd=at)
            if made:
                os.fchmod(below, 0o755)
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, root: int) -> None:
    parts = _parts(member.name)
    if not parts:
        return
    if member.isdir():
        with _inside(root, parts, make=True):
            return
    with _inside(root, parts[:-1], make=True) as folder:
        name = parts[-1]
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=folder)
        elif member.islnk():
            source = _parts(member.linkname)
            with _inside(root, source[:-1]) as other:
                os.link(source[-1], name, src_dir_fd=other, dst_dir_fd=folder, follow_symlinks=False)
        elif member.isreg():
            content = archive.extractfile(member)
            assert content is not None
            with os.fdopen(os.open(name, _FILE, 0o600, dir_fd=folder), "wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
                os.fchmod(file.fileno(), 0o755 if member.mode & 0o111 else 0o644)
