"""All tests, three processes side by side: those between real processes mostly wait, the others mostly compute.

python scripts/streams.py         exit status 0 where all are green; what a part says comes whole when it is done

Parts are dealt to who is free, in the order below, which is that of their measured times: what takes longest begins
first. What no part names makes one more part, so a new folder of tests is played without a word here.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock

STREAMS = 3
"""Two cores are at work four fifths of the time with two, and nearly always with three."""
PARTS = (
    ("tests/system/test_[j-r]*.py",),
    ("tests/system/test_[a-i]*.py",),
    ("tests/system/test_[s-z]*.py", "tests/rooms/renting"),
    ("tests/rooms/t*", "tests/rooms/v*"),
    ("tests/rooms/gateway",),
    ("tests/rooms/[a-f]*",),
    ("tests/contracts",),
)


def parts() -> list[list[str]]:
    """Words for pytest, a list for each of its processes."""
    named = [[str(it) for glob in globs for it in sorted(Path().glob(glob))] for globs in PARTS]
    return [[f"--ignore={it}" for part in named for it in part], *named]


class Streams:
    def __init__(self) -> None:
        self._lock = Lock()
        self._ended = Event()
        self._running: set[subprocess.Popen[bytes]] = set()

    def play(self, words: Sequence[str]) -> int:
        """In a session of its own, so that all of it can be ended."""
        began_s = time.monotonic()
        with tempfile.TemporaryFile() as said:
            with self._lock:
                if self._ended.is_set():
                    return 1
                pytest = subprocess.Popen(
                    [sys.executable, "-m", "pytest", *words, "-p", "no:cacheprovider"],
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._running.add(pytest)
            status = pytest.wait()
            with self._lock:
                self._running.discard(pytest)
                said.seek(0)
                sys.stdout.buffer.write(said.read())
                print(f"{time.monotonic() - began_s:.0f} s, status {status}: {' '.join(words)}", flush=True)
        return status

    def end(self) -> None:
        with self._lock:
            self._ended.set()
            for pytest in self._running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pytest.pid, signal.SIGTERM)


def main() -> int:
    streams = Streams()
    with ThreadPoolExecutor(STREAMS) as pool:
        try:
            return int(any(list(pool.map(streams.play, parts()))))
        except BaseException:
            streams.end()
            raise


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[1])
    sys.exit(main())
