"""Locks of open files."""

import threading
from pathlib import Path

from clusterai.runtime.adapters import filelock


def test_who_only_looks_keeps_nobody_out(tmp_path: Path):
    """A lock that is had for a moment is waited for; one that is kept isn't given."""
    path = tmp_path / "lock"
    looking, taking = path.open("ab"), path.open("ab")
    with looking, taking:
        assert filelock.is_free(looking)
        assert not filelock.hold(taking), "it is looked at"
        seen = threading.Timer(0.05, looking.close)
        seen.start()
        assert filelock.hold(taking, patience_s=60.0)
        seen.join()
        with path.open("ab") as third:
            assert not filelock.hold(third, patience_s=0.05)
