"""Holders that sent something wrong, as this machine saw it: for a week they aren't asked for that data set again.

One line of JSON each. It is this machine's own memory and convinces nobody else.
"""

import time
from pathlib import Path

import msgspec

from clusterai.content import Evidence

FORGOTTEN_S = 7 * 24 * 3600
MOST_LINES = 1000
MOST_BYTES = 4 << 20


class Remembered:
    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of_this_user(cls) -> "Remembered":
        from platformdirs import user_data_path

        return cls(user_data_path("clusterai") / "wrong-holders.jsonl")

    def all(self) -> list[Evidence]:
        try:
            raw = self._path.read_bytes()[-MOST_BYTES:]
        except OSError:
            return []
        found: list[Evidence] = []
        for line in raw.splitlines()[-MOST_LINES:]:
            try:
                found.append(msgspec.json.decode(line, type=Evidence))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
        now_s = time.time()
        return [it for it in found if now_s - it.at_s < FORGOTTEN_S]

    def of(self, address: str) -> frozenset[str]:
        """Holders not to ask for this data set, by its 0x address."""
        return frozenset(it.holder for it in self.all() if it.address == address)

    def add(self, evidence: tuple[Evidence, ...]) -> None:
        if not evidence:
            return
        kept = [*self.all(), *evidence][-MOST_LINES:]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_name(self._path.name + ".new")
        new.write_bytes(b"".join(msgspec.json.encode(it) + b"\n" for it in kept))
        new.replace(self._path)
