"""Tars made in memory, and a root with nothing but a shell."""

import io
import tarfile
from pathlib import Path


def tar(*members: tuple[str, str, bytes]) -> bytes:
    """(kind, name, content or target) of each member."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for kind, name, content in members:
            info = tarfile.TarInfo(name)
            info.type = {
                "file": tarfile.REGTYPE,
                "dir": tarfile.DIRTYPE,
                "link": tarfile.SYMTYPE,
                "hard": tarfile.LNKTYPE,
            }.get(kind, tarfile.CHRTYPE)
            info.mode = 0o6755
            if kind == "file":
                info.size = len(content)
            else:
                info.linkname = content.decode()
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def shell() -> list[tuple[str, str, bytes]]:
    """A root with nothing but dash and what it is linked to."""
    interpreter = next(Path("/lib64").glob("ld-linux*"), None) or next(Path("/lib").glob("ld-linux*"))
    libc = next(Path("/lib").glob("*-linux-gnu/libc.so.6"))
    return [
        ("dir", "bin", b""),
        ("file", "bin/dash", Path("/bin/dash").read_bytes()),
        ("link", "bin/sh", b"/bin/dash"),
        ("file", str(interpreter)[1:], interpreter.read_bytes()),
        ("file", str(libc)[1:], libc.read_bytes()),
        ("file", "etc/motto", b"of the tar\n"),
    ]
