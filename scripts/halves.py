"""All tests, in two halves side by side: those between real processes mostly wait, the others mostly compute.

python scripts/halves.py          exit status 0 where both are green; the second half's words come when the first is done
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

WAITING = ("tests/system", "tests/rooms/renting", "tests/rooms/validator/test_drand_daemon.py")


def main() -> int:
    pytest = [sys.executable, "-m", "pytest"]
    with tempfile.TemporaryFile() as said:
        # In a session of its own, so that all of it can be ended.
        waiting = subprocess.Popen(
            [*pytest, *WAITING, "-p", "no:cacheprovider"],
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            computing = subprocess.run([*pytest, *(f"--ignore={it}" for it in WAITING)], check=False)
            status = waiting.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(waiting.pid, signal.SIGTERM)
            waiting.wait()
            raise
        said.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(said.read())
    return computing.returncode or status


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[1])
    sys.exit(main())
