"""`python -m clusterai.cli.local.leash FD MODULE ARGS…`: run a daemon that can't outlive its supervisor.

The supervisor holds the write end of a pipe and never writes. However it dies, `kill -9` included, the kernel closes the
pipe, and the read end here says so. (Linux could send a signal on the parent's death; macOS could not.)
"""

import os
import runpy
import signal
import sys
import threading
import time

GRACE_S = 8.0


def _watch(pipe: int) -> None:
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


def main() -> None:
    pipe, module = int(sys.argv[1]), sys.argv[2]
    threading.Thread(target=_watch, args=(pipe,), daemon=True, name="leash").start()
    # Ctrl-C belongs to the supervisor, which ends its processes in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
