"""What gateways countersigned of this machine's stays, a file each: with the receipts, that both sides say that the time was proven."""

from pathlib import Path

from clusterai.node.core.staybook import Signed
from clusterai.protocol import canonical

FOLDER = "countersigned"
MOST_KEPT = 1_000
_MOST_BYTES = 1_024


class Countersigned:
    """The newest of each stay, in the node's own folder; of more than `MOST_KEPT` stays the oldest go."""

    def __init__(self, data: Path) -> None:
        self._folder = data / FOLDER

    def keep(self, signed: Signed) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / f"{signed.said.stay.hex()}.bin"
        is_new = not path.exists()
        fresh = path.with_suffix(".new")
        # Not fsynced: the next interval brings another, and money doesn't hang on it.
        fresh.write_bytes(canonical.encode(signed))
        fresh.replace(path)
        if is_new:
            by_age = sorted(self._folder.glob("*.bin"), key=lambda it: it.stat().st_mtime_ns)
            for old in by_age[:-MOST_KEPT]:
                old.unlink()

    def all(self) -> list[Signed]:
        """Newest first.

        Raises:
            canonical.Malformed: a file that was changed.
        """
        found = [canonical.decode(it.read_bytes(), Signed, _MOST_BYTES) for it in self._folder.glob("*.bin")]
        return sorted(found, key=lambda it: -it.at_s)
