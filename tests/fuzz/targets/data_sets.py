"""Manifests and URLs of strangers: what is read may be written to a folder and dialled."""

from ipaddress import ip_address
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import urlsplit

from clusterai.content import BadManifest, File, Manifest, decode, encode
from clusterai.content.core.reach import Unreachable, base, is_public

PIECE = 1 << 16


def once(data: bytes) -> bool:
    """No path leaves its folder on any system, sizes add up; no literal of a private network is dialled."""
    return _dialled(data[1:]) if data[:1] == b"u" else _read(data[1:])


def _read(data: bytes) -> bool:
    try:
        manifest = decode(data)
    except BadManifest:
        return False
    assert encode(manifest) == data
    assert sum(piece.size for piece in manifest.pieces()) == manifest.size
    assert manifest.count * 32 <= len(data)
    for file in manifest.files:
        for path in (PurePosixPath(file.path), PureWindowsPath(file.path)):
            assert not path.is_absolute()
            assert not path.drive
            assert ".." not in path.parts
    return True


def _dialled(data: bytes) -> bool:
    try:
        url = base(data.decode("latin-1"))
    except Unreachable:
        return False
    parts = urlsplit(url)
    assert parts.scheme in ("http", "https")
    assert parts.hostname
    assert parts.username is None
    try:
        literal = str(ip_address(parts.hostname))
    except ValueError:
        return True
    assert is_public(literal)
    return True


def seeds() -> list[bytes]:
    files = (File("a/b.csv", PIECE + 1, bytes(64)), File("ü.txt", 0, b""))
    manifests = [Manifest(PIECE, files), Manifest(1 << 20, ())]
    urls = [b"https://data.example.org/x", b"http://93.184.215.14:8080/a", b"http://[2606:4700::1111]/"]
    return [b"m" + encode(it) for it in manifests] + [b"u" + it for it in urls]
