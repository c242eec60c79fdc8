"""Which paths may stand in a stranger's listing: those that mean the same file, inside one folder, on every system.

What would climb out (`..`, `/etc`, `C:`), hide (`a\\0b`), or fall together with another path on a file system that folds case
or composes accents is refused, here and not where files are written: a path that was read is a path that may be written.
"""

import unicodedata
from collections.abc import Iterable

MOST_BYTES = 512
MOST_DEPTH = 16
OWN = ".clusterai"
"""Our own folder beside the files: manifest, card, and what a fetch remembers. No data set has files in it."""

_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{port}{n}" for port in ("com", "lpt") for n in range(10)]
)
_REFUSED = frozenset('\\:*?"<>|')


class BadPath(ValueError):
    """{path} can't be a path in a data set: {why}."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path[:120]!r} can't be a path in a data set: {why}")


def checked(path: str) -> str:
    """
    Raises:
        BadPath: it is absolute, climbs, is no name on some system, or is spelt in a second way.
    """
    if not path or len(path.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise BadPath(path, f"a path has 1 to {MOST_BYTES} bytes")
    if not unicodedata.is_normalized("NFC", path):
        raise BadPath(path, "its accents aren't composed (NFC)")
    parts = path.split("/")
    if len(parts) > MOST_DEPTH:
        raise BadPath(path, f"it is more than {MOST_DEPTH} folders deep")
    for part in parts:
        if part in ("", ".", ".."):
            raise BadPath(path, "it is absolute, climbs, or has an empty name")
        if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in part):
            raise BadPath(path, "it has control characters")
        if _REFUSED & set(part):
            raise BadPath(path, 'none of \\ : * ? " < > | is in a name on every system')
        if part[-1] in " ." or part[0] == " ":
            raise BadPath(path, "a name ends in a dot or a blank, or begins with one")
        if part.split(".", 1)[0].casefold() in _DEVICES:
            raise BadPath(path, "it is the name of a device on some systems")
    if parts[0].casefold() == OWN:
        raise BadPath(path, f"{OWN} is ours")
    return path


def check_together(paths: Iterable[str]) -> None:
    """They can lie in one folder, on systems that fold case too.

    Raises:
        BadPath: two are one file there, or one lies inside another.
    """
    folded = [unicodedata.normalize("NFC", path.casefold()) for path in paths]
    files = set(folded)
    if len(files) != len(folded):
        before: set[str] = set()
        for path in folded:
            if path in before:
                raise BadPath(
                    path, "it is listed twice, or differs from another in upper and lower case alone"
                )
            before.add(path)
    for path in folded:
        end = path.find("/")
        while end >= 0:
            if path[:end] in files:
                raise BadPath(path, "it lies inside a file")
            end = path.find("/", end + 1)
