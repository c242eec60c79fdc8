"""Where a vault's encrypted pieces lie: in its own folder, or at any URL that fsspec writes to, such as s3://bucket/prefix.

Whoever keeps them sees what a thief of the disk sees: sizes, counts, when they change. Keys, the manifest and the journal never go there. Credentials
come from the environment or fsspec's own configuration: a URL that holds one is refused, and no error repeats what a server or a library said.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

from blake3 import blake3

from clusterai.vault.adapters.folder import PLACE

FULL_WORDS = ("quota", "insufficientstorage", "storagefull", "no space", "no free volumes", "507")
"""Of services that have no error of their own for it."""
BUCKETS = ("s3", "s3a", "gs", "gcs", "abfs", "az", "oss", "r2")
"""Have no folders; and whoever misspells a bucket wants none made."""
S3_LIMITS = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}
"""Seconds, and tries. Boto's own, a minute and five tries, would hold up whoever asks."""

Fault = Literal["unreachable", "forbidden", "full", "missing", "malformed"]


class StoreFault(OSError):
    """The place of a vault's pieces doesn't do what it should: the message says what, and what to do about it."""

    def __init__(self, code: Fault, detail: str) -> None:
        super().__init__(detail)
        self.code: Fault = code


class Gone(LookupError):
    """There is no such piece."""


class PieceStore(Protocol):
    """Pieces by their address. Safe from several threads.

    Attributes:
        place: for people.
    """

    place: str

    def put(self, address: bytes, box: bytes) -> None:
        """Durable when it returns.

        Raises:
            OSError.
        """
        ...

    def get(self, address: bytes) -> bytes:
        """
        Raises:
            Gone, OSError.
        """
        ...

    def look(self, address: bytes) -> None:
        """Whether it could be got now.

        Raises:
            Gone, OSError.
        """
        ...

    def addresses(self) -> Iterator[bytes]:
        """Of all that lies there.

        Raises:
            OSError.
        """
        ...

    def remove(self, address: bytes) -> None:
        """Nothing, where there is none.

        Raises:
            OSError.
        """
        ...


class OnDisk:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.place = str(folder)

    def path(self, address: bytes) -> Path:
        name = address.hex()
        return self._folder / name[:2] / name[2:]

    def put(self, address: bytes, box: bytes) -> None:
        path = self.path(address)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = path.with_name(f"{path.name}.new")
        with aside.open("wb") as file:
            file.write(box)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)

    def get(self, address: bytes) -> bytes:
        try:
            return self.path(address).read_bytes()
        except FileNotFoundError:
            raise Gone(address.hex()) from None

    def look(self, address: bytes) -> None:
        if not self.path(address).exists():
            raise Gone(address.hex())

    def addresses(self) -> Iterator[bytes]:
        for path in self._folder.glob("??/*"):
            if path.suffix == ".new":
                path.unlink(missing_ok=True)  # a crash left it
                continue
            with suppress(ValueError):
                yield bytes.fromhex(path.parent.name + path.name)

    def remove(self, address: bytes) -> None:
        self.path(address).unlink(missing_ok=True)


class AtUrl:
    """Opened when it is first used: who only looks at a vault needs neither the library nor the network."""

    def __init__(self, url: str) -> None:
        self.place = url
        self._opened: tuple[Any, str] | None = None

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            import fsspec  # pyright: ignore[reportMissingTypeStubs]

            options = {"config_kwargs": S3_LIMITS} if self.place.startswith(("s3://", "s3a://")) else {}
            fs, root = fsspec.core.url_to_fs(self.place, **options)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            self._opened = fs, str(root)  # pyright: ignore[reportUnknownArgumentType]
        return self._opened

    def _path(self, root: str, address: bytes) -> str:
        name = address.hex()
        return f"{root}/{name[:2]}/{name[2:]}"

    def put(self, address: bytes, box: bytes) -> None:
        try:
            fs, root = self._open()
            path = self._path(root, address)
            if urlsplit(self.place).scheme not in BUCKETS:
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(path, box)
        except Exception as error:  # each of fsspec's file systems raises its own
            raise fault(self.place, error) from None

    def get(self, address: bytes) -> bytes:
        try:
            fs, root = self._open()
            return bytes(fs.cat_file(self._path(root, address)))
        except FileNotFoundError:
            raise Gone(address.hex()) from None
        except Exception as error:  # as above
            raise fault(self.place, error) from None

    def look(self, address: bytes) -> None:
        try:
            fs, root = self._open()
            fs.invalidate_cache()
            fs.info(self._path(root, address))
        except FileNotFoundError:
            raise Gone(address.hex()) from None
        except Exception as error:  # as above
            raise fault(self.place, error) from None

    def addresses(self) -> Iterator[bytes]:
        try:
            fs, root = self._open()
            fs.invalidate_cache()
            found = [str(it) for it in fs.find(root)]
        except FileNotFoundError:
            return
        except Exception as error:  # as above
            raise fault(self.place, error) from None
        for path in found:
            with suppress(ValueError):
                yield bytes.fromhex("".join(path.split("/")[-2:]))

    def remove(self, address: bytes) -> None:
        try:
            fs, root = self._open()
            fs.rm_file(self._path(root, address))
        except FileNotFoundError:
            pass
        except Exception as error:  # as above
            raise fault(self.place, error) from None


def piece_store(folder: Path, url: str = "") -> PieceStore:
    """
    Args:
        folder: of the vault's own, where no URL is given.
    """
    if not url:
        return OnDisk(folder)
    if url.startswith("file://"):
        return OnDisk(Path(unquote(urlsplit(url).path)))  # written through to the disk, which fsspec doesn't
    return AtUrl(url)


def place_in(url: str, name: str) -> str:
    """A place of a vault's own under a URL: what isn't a vault's is swept away there.

    Raises:
        StoreFault: it can't be such a URL.
    """
    parts = urlsplit(url)
    if (
        "::" in url
        or not parts.scheme
        or not (parts.netloc or parts.path.strip("/") or parts.scheme == "memory")
    ):
        raise StoreFault(
            "malformed", f"{url[:80]!r} is no place: such as s3://bucket/prefix or file:///folder"
        )
    if not re.match(PLACE, url):
        # Not repeated: it may hold a password.
        raise StoreFault(
            "malformed",
            "the URL holds more than a place: credentials come from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for instance) "
            "or from ~/.config/fsspec",
        )
    if parts.scheme in ("http", "https"):
        raise StoreFault(
            "malformed",
            f"{parts.scheme} only reads: name s3://bucket/prefix with AWS_ENDPOINT_URL, for instance",
        )
    if parts.scheme == "file" and parts.netloc:
        raise StoreFault("malformed", "a folder is file:///folder, with three strokes")
    return f"{url.rstrip('/')}/{name}-{token_hex(4)}"


def tried(store: PieceStore) -> None:
    """Put something there, read it, find it, and take it away: better now than when data is at stake.

    Raises:
        OSError, StoreFault.
    """
    box = token_bytes(64)
    address = blake3(box).digest()
    store.put(address, box)
    try:
        try:
            if store.get(address) != box or address not in store.addresses():
                raise Gone
        except Gone:
            raise StoreFault(
                "missing", f"{store.place} doesn't give back what was put there: use another place"
            ) from None
    finally:
        store.remove(address)


def fault(url: str, error: Exception) -> StoreFault:
    """What a file system's error means to an owner, without a word of it: it may hold more than anybody should read in a log."""
    kind = type(error).__name__
    text = str(error).lower().replace(" ", "")
    if isinstance(error, ImportError) or (isinstance(error, ValueError) and "protocolnotknown" in text):
        scheme = urlsplit(url).scheme
        return StoreFault(
            "unreachable",
            f"nothing here opens {scheme}:// ({kind}): pip install clusterai[data], or fsspec's package for it",
        )
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or any(it.replace(" ", "") in text for it in FULL_WORDS):
        return StoreFault("full", f"{url} is full: make room there; nothing was changed")
    if isinstance(error, PermissionError) or "credentials" in kind.lower():
        return StoreFault(
            "forbidden",
            f"{url} lets us not in ({kind}): give the process that serves the vault credentials that may read, write, list and delete there "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://, or ~/.config/fsspec)",
        )
    if isinstance(error, FileNotFoundError):
        return StoreFault("missing", f"{url} isn't there ({kind}): make its bucket or folder first")
    return StoreFault(
        "unreachable",
        f"{url} can't be reached ({kind}): look at the network, and for s3:// at AWS_ENDPOINT_URL",
    )
