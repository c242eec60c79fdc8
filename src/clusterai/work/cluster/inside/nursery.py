"""Children that have Ray loaded already: forked, where Ray would start a Python that loads it anew, once or twice.

    raylet, ray start ── standin.py ── words, environment, files ──> nursery ── fork ──> the program
                                    <── how it ended ───────────────────┘

To load Ray takes half a second to a second of processor time, a fork some milliseconds. The nursery is forked from the keeper before anything in
it ran: one thread, no connection, nothing drawn at random. It declines whatever it couldn't do just so (`Birth.of`), and the program
is started as ever.

A child ends with whoever stands in for it, and with the nursery, which ends with the keeper.
"""

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from births import BY_PIPE, NICENESS, PATH, PLANTED, Birth, Declined, hidden, run
from planted import Planted

HEADER = struct.Struct("<I")
MOST_ASKED = 1 << 20
MOST_FILES = 256
PR_SET_PDEATHSIG = 1


def dies_with_its_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class _Child(NamedTuple):
    pid: int
    end: int
    line: socket.socket


class Nursery:
    """Made in a process that has Ray loaded and nothing running, which then is it.

    Args:
        place: of its socket.
        loaded: the environment in which Ray was loaded.
    """

    def __init__(self, place: str, loaded: Mapping[str, str]) -> None:
        self._loaded = loaded
        self._planted: dict[str, Planted] = {}
        try:
            self._planted = {name: Planted.find(word) for name, word in PLANTED.items()}
        except Declined as error:
            print(f"workers start as ever: {error}", file=sys.stderr, flush=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(place)
        self._listener.listen(64)
        self._children: dict[int, _Child] = {}
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)

    def close(self) -> None:
        """For the process that isn't it."""
        self._listener.close()

    def serve(self) -> Callable[[], None]:
        """Returns in children alone, with what each is to do."""
        while True:
            for file, _ in self._poll.poll():
                if file == self._listener.fileno():
                    work = self._ask()
                    if work is not None:
                        return work
                elif file in self._children:
                    self._look(file)

    def _ask(self) -> Callable[[], None] | None:
        line, _ = self._listener.accept()
        line.settimeout(5)
        files: list[int] = []
        try:
            said, files = heard(line)
            birth = Birth.of(said["words"], said["environment"], said["folder"], self._loaded)
            self._check(birth)
            group = int(said["group"])
            pid = os.fork()
            if pid == 0:
                self._leave(files, said)
                files = []
                return lambda: self._become(birth, said["words"])
            with contextlib.suppress(OSError):
                # The child does it too, and whoever is later finds it done.
                os.setpgid(pid, group)
            end = os.pidfd_open(pid)
            child = _Child(pid, end, line)
            line.send(json.dumps({"pid": pid}).encode())
        except (Declined, OSError, ValueError, KeyError, IndexError, TypeError) as error:
            print(f"a program of Ray's is started as ever: {error!r}", file=sys.stderr, flush=True)
            with contextlib.suppress(OSError):
                line.send(json.dumps({"no": str(error)[:200]}).encode())
            line.close()
            return None
        finally:
            for it in files:
                os.close(it)
        for file in (end, line.fileno()):
            self._children[file] = child
            self._poll.register(file, select.POLLIN)
        return None

    def _check(self, birth: Birth) -> None:
        """
        Raises:
            Declined.
        """
        job, raylet = (birth.environment.get(name, "") for name in PLANTED)
        if birth.what.endswith("/default_worker.py"):
            if not self._planted:
                raise Declined("its job can't be told")
            if len(job) > len(PLANTED["RAY_JOB_ID"]) or not raylet.isdigit():
                raise Declined("another job's name")
        folders = [*birth.environment.get(PATH, "").split(":"), birth.folder if birth.how else ""]
        if name := hidden([it for it in folders if it], sys.modules):
            raise Declined(f"{name} is loaded already")

    def _look(self, file: int) -> None:
        """It ended, or whoever stands in for it did."""
        child = self._children[file]
        if file == child.line.fileno():
            # Nothing more is ever said: this is the end of whoever asked.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        _, status = os.waitpid(child.pid, 0)
        with contextlib.suppress(OSError):
            child.line.send(json.dumps({"status": status}).encode())
        for it in (child.end, child.line.fileno()):
            self._poll.unregister(it)
            del self._children[it]
        os.close(child.end)
        child.line.close()

    def _leave(self, files: Sequence[int], said: Mapping[str, Any]) -> None:
        """From here on we are the child: dead with the nursery, and with nothing open but what was handed over."""
        dies_with_its_parent()
        with contextlib.suppress(OSError):
            os.setpgid(0, int(said["group"]))
        wanted = [int(it) for it in said["files"]]
        above = max([*wanted, *files]) + 1
        high = [fcntl.fcntl(it, fcntl.F_DUPFD_CLOEXEC, above) for it in files]
        for it in self._children.values():
            it.line.detach()
        self._listener.detach()
        os.closerange(0, above)
        for ours, its in zip(high, wanted, strict=True):
            os.dup2(ours, its)
            os.close(ours)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        most = int(said["most_files"])
        resource.setrlimit(resource.RLIMIT_NOFILE, (most if hard < 0 else min(most, hard), hard))
        signal.pthread_sigmask(signal.SIG_SETMASK, said["blocked"])

    def _become(self, birth: Birth, words: Sequence[str]) -> None:
        gc.enable()
        os.chdir(birth.folder)
        os.environ.clear()
        os.environ.update(birth.environment)
        for name, planted in self._planted.items():
            planted.become(birth.environment.get(name, ""))
        # A service looks whether its raylet is its parent, which the nursery is instead; or reads a pipe of it, which it was handed.
        consts: Any = importlib.import_module("ray.dashboard.consts")
        watcher: Any = importlib.import_module("ray._private.process_watcher")
        consts.PARENT_HEALTH_CHECK_BY_PIPE = birth.environment.get(BY_PIPE, "").lower() in ("1", "true")
        watcher.get_raylet_pid = os.getppid
        core: Any = importlib.import_module("ray._raylet")
        if NICENESS in birth.environment:
            core.Config.initialize(json.dumps({"worker_niceness": int(birth.environment[NICENESS])}))
        core.setproctitle(" ".join(words)[:200])
        run(birth)


def heard(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """What was asked, and the open files that came with it.

    Raises:
        OSError, ValueError.
    """
    data, files, flags, _ = socket.recv_fds(line, 1 << 16, MOST_FILES)
    try:
        if flags & socket.MSG_CTRUNC:
            raise ValueError("too many files")
        size = HEADER.unpack(data[: HEADER.size])[0]
        if size > MOST_ASKED:
            raise ValueError("too long")
        data = data[HEADER.size :]
        while len(data) < size:
            if not (more := line.recv(size - len(data))):
                raise ValueError("cut off")
            data += more
        said = json.loads(data)
        if len(said["files"]) != len(files):
            raise ValueError("other files than were told of")
    except (ValueError, KeyError, struct.error, OSError):
        for it in files:
            os.close(it)
        raise
    return said, files
