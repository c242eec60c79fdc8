"""Folders: one that is published, and one into which a set comes.

    TO/data/train.csv              a whole file: renamed into place when all of it was right
    TO/.clusterai/manifest         what the set is
    TO/.clusterai/00017.part       file 17 of the manifest while it comes
    TO/.clusterai/have             four bytes for each piece that was written
    TO/.clusterai/lock             one fetch at a time

A process may be killed at any moment. `have` only says what is worth looking at: everything in it is hashed again when a fetch
goes on, so that neither a kill nor a power cut leaves a wrong byte behind.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from blake3 import blake3

from clusterai.content.core import paths
from clusterai.content.core.manifest import MOST_FILES, PIECE_BYTES, BadManifest, File, Manifest, encode
from clusterai.protocol.ids import Digest
from clusterai.runtime.adapters import filelock

MANIFEST = f"{paths.OWN}/manifest"
SPARE_BYTES = 64 << 20
"""Of a disk stay free."""

Moved = Callable[[int], None]
"""Called with bytes that were just looked at."""


class NotPublishable(ValueError):
    """The folder can't be published as it is; the message names the file."""


class InTheWay(FileExistsError):
    """{path} is there already and isn't the data set's: move it, or fetch into another folder."""

    def __init__(self, path: Path, why: str = "is there already and isn't the data set's") -> None:
        super().__init__(f"{path} {why}: move it, or fetch into another folder")


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """Path in the set and on disk of every plain file, in the manifest's order.

    Raises:
        NotPublishable: a link, a device, or a name that isn't one everywhere.
    """
    found: list[tuple[str, Path]] = []
    for place, folders, names in os.walk(folder):
        here = Path(place)
        if here == folder and paths.OWN in folders:
            folders.remove(paths.OWN)
        for name in [*folders, *names]:
            path = here / name
            relative = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode):
                raise NotPublishable(f"{relative!r} is a link or a device: only plain files are published")
            try:
                found.append((paths.checked(relative), path))
            except paths.BadPath as error:
                raise NotPublishable(f"{error}: rename it") from None
            if len(found) > MOST_FILES:
                raise NotPublishable(f"more than {MOST_FILES} files: pack them into fewer")
    found.sort()
    return iter(found)


def scan(folder: Path, piece_bytes: int = PIECE_BYTES, moved: Moved | None = None) -> Manifest:
    """Hash a folder (3 GB/s a core, or what the disk gives).

    Raises:
        NotPublishable: see `files_of`; or it is empty.
    """
    files: list[File] = []
    for relative, path in files_of(folder):
        hashes = bytearray()
        size = 0
        with path.open("rb") as file:
            while piece := file.read(piece_bytes):
                hashes += blake3(piece).digest()
                size += len(piece)
                if moved is not None:
                    moved(len(piece))
        files.append(File(relative, size, bytes(hashes)))
    if not files:
        raise NotPublishable(f"{folder} has no files")
    try:
        return Manifest(piece_bytes, tuple(files))
    except (BadManifest, paths.BadPath) as error:
        raise NotPublishable(str(error)) from None


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Put it where every holder has it."""
    path = folder / MANIFEST
    path.parent.mkdir(exist_ok=True)
    _replace(path, encode(manifest))
    return path


class Landing:
    """A folder into which one set comes. One process at a time."""

    def __init__(self, target: Path, manifest: Manifest, moved: Moved | None = None) -> None:
        """Look at what is there already, and hash it.

        Raises:
            InTheWay: another fetch is at work, another set lies here, or a file of the same name does.
            OSError: the disk is too small for the rest.
        """
        self.manifest = manifest
        self.target = target
        self._own = target / paths.OWN
        self._own.mkdir(parents=True, exist_ok=True)
        self._lock = (self._own / "lock").open("w")
        self._open: dict[int, BinaryIO] = {}
        try:
            self._begin(moved)
        except BaseException:
            self.close()
            raise

    def _begin(self, moved: Moved | None) -> None:
        if not filelock.hold(self._lock):
            raise InTheWay(self.target, "is being fetched into by another process")
        raw = encode(self.manifest)
        known = self._own / "manifest"
        if known.exists() and known.read_bytes() != raw:
            raise InTheWay(self.target, "holds another data set")
        _replace(known, raw)
        self._pieces = list(self.manifest.pieces())
        self._of_file: list[list[int]] = [[] for _ in self.manifest.files]
        for number, piece in enumerate(self._pieces):
            self._of_file[piece.file].append(number)
        have = self._own / "have"
        claimed = _read_have(have)
        self._have = self._seen(claimed, moved)
        self._left = [len([one for one in of if one not in self._have]) for of in self._of_file]
        _replace(have, b"".join(number.to_bytes(4, "big") for number in sorted(self._have)))
        self._log = have.open("ab", buffering=0)
        needed = sum(self._pieces[number].size for number in self.missing())
        if needed + SPARE_BYTES > shutil.disk_usage(self.target).free:
            raise OSError(f"{needed} more bytes don't fit on the disk of {self.target}")
        for number, left in enumerate(self._left):
            if left == 0:
                self._finish(number)

    def missing(self) -> list[int]:
        return [number for number in range(len(self._pieces)) if number not in self._have]

    @property
    def have_bytes(self) -> int:
        return sum(self._pieces[number].size for number in self._have)

    @property
    def is_whole(self) -> bool:
        return not any(self._left)

    def write(self, number: int, data: bytes | bytearray) -> None:
        """A piece whose hash was right."""
        piece = self._pieces[number]
        assert len(data) == piece.size, "a piece was checked before it is written"
        if number in self._have:
            return
        file = self._part(piece.file)
        os.pwrite(file.fileno(), data, piece.start)
        self._log.write(number.to_bytes(4, "big"))
        self._have.add(number)
        self._left[piece.file] -= 1
        if not self._left[piece.file]:
            self._finish(piece.file)

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
        log = getattr(self, "_log", None)
        if log is not None:
            log.close()
            if self.is_whole:
                for name in ("have",):
                    (self._own / name).unlink(missing_ok=True)
        self._lock.close()

    def __enter__(self) -> "Landing":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _part_path(self, file: int) -> Path:
        return self._own / f"{file:05}.part"

    def _part(self, number: int) -> BinaryIO:
        file = self._open.get(number)
        if file is None:
            if len(self._open) >= 64:
                self._open.pop(next(iter(self._open))).close()
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            file = self._open[number] = os.fdopen(os.open(self._part_path(number), flags, 0o644), "r+b", 0)
        return file

    def _finish(self, number: int) -> None:
        """All of a file is here: into its place, durable first."""
        wanted = self.manifest.files[number]
        final = self._final(wanted.path)
        if final.exists():
            return  # it was whole when we began
        file = self._part(number)
        file.truncate(wanted.size)
        os.fsync(file.fileno())
        del self._open[number]
        file.close()
        final.parent.mkdir(parents=True, exist_ok=True)
        self._final(wanted.path)  # what was made meanwhile may be a link
        self._part_path(number).rename(final)

    def _final(self, path: str) -> Path:
        """
        Raises:
            InTheWay: a link leads out of the folder.
        """
        final = self.target / path
        root = self.target.resolve()
        if final.is_symlink() or not final.parent.resolve().is_relative_to(root):
            raise InTheWay(final, "is a link, or lies behind one")
        return final

    def _seen(self, claimed: set[int], moved: Moved | None) -> set[int]:
        """Pieces that are here and right: of whole files, and of parts where they are claimed."""
        found: set[int] = set()
        for number, file in enumerate(self.manifest.files):
            final, part = self._final(file.path), self._part_path(number)
            if final.exists():
                if not final.is_file() or final.stat().st_size != file.size:
                    raise InTheWay(final)
                right = self._right(final, set(self._of_file[number]), moved)
                if len(right) != len(self._of_file[number]):
                    raise InTheWay(final)
                found |= right
                part.unlink(missing_ok=True)
            elif part.is_file() and not part.is_symlink():
                found |= self._right(part, claimed & set(self._of_file[number]), moved)
        return found

    def _right(self, path: Path, numbers: set[int], moved: Moved | None) -> set[int]:
        right: set[int] = set()
        with path.open("rb") as file:
            for number in sorted(numbers):
                piece = self._pieces[number]
                file.seek(piece.start)
                data = file.read(piece.size)
                if moved is not None:
                    moved(len(data))
                if blake3(data).digest() == piece.digest:
                    right.add(number)
        return right


def is_intact(folder: Path, manifest: Manifest, moved: Moved | None = None) -> str | None:
    """The first path that isn't there or isn't right, None if all are: before a folder is held, and after a fetch."""
    pieces = manifest.pieces()
    for file in manifest.files:
        count = len(file.pieces) // 32
        mine = [next(pieces) for _ in range(count)]
        path = folder / file.path
        try:
            with path.open("rb") as opened:
                if path.is_symlink() or os.fstat(opened.fileno()).st_size != file.size:
                    return file.path
                for piece in mine:
                    data = opened.read(piece.size)
                    if blake3(data).digest() != piece.digest:
                        return file.path
                    if moved is not None:
                        moved(len(data))
        except OSError:
            return file.path
    return None


def address_of(raw: bytes) -> Digest:
    return Digest(blake3(raw).digest())


def _read_have(path: Path) -> set[int]:
    with contextlib.suppress(FileNotFoundError):
        raw = path.read_bytes()
        return {int.from_bytes(raw[at : at + 4], "big") for at in range(0, len(raw) - 3, 4)}
    return set()


def _replace(path: Path, raw: bytes) -> None:
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
