"""Stands where Ray started one of its Python programs, while a child of the nursery's, which has Ray loaded already, does the work.

    python -I -S standin.py SOCKET /path/python program.py arguments...

It hands over its words, environment, folder and open files, ends as the child ends, and passes on what ends it: killed, the child is
killed by the nursery. Where the nursery declines or isn't there, it becomes the program itself.
"""

import array
import json
import os
import resource
import signal
import socket
import struct
import sys
from typing import Any

HEADER = struct.Struct("<I")
MOST_FILES = 200
MOST_ANSWER = 4096


def open_files() -> list[int]:
    """Numbers of those that the program would inherit."""
    found: list[int] = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  without pathlib it starts in half the time
        try:
            if os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            continue  # The listing's own.
    return sorted(found)


def asked(words: list[str], files: list[int]) -> bytes:
    said = {
        "words": words,
        "environment": dict(os.environ),
        "folder": os.getcwd(),  # noqa: PTH109
        "files": files,
        "blocked": [int(it) for it in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        "most_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "group": os.getpgrp(),
    }
    text = json.dumps(said).encode()
    return HEADER.pack(len(text)) + text


def hand_over(nursery: socket.socket, words: list[str]) -> int:
    """The child's process number.

    Raises:
        OSError, ValueError: it declined.
    """
    files = open_files()
    if len(files) > MOST_FILES:
        raise ValueError("too many open files")
    said = asked(words, files)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
    sent = nursery.sendmsg([said], rights)
    nursery.sendall(said[sent:])
    answer: dict[str, Any] = json.loads(nursery.recv(MOST_ANSWER))
    if "pid" not in answer:
        raise ValueError(str(answer.get("no")))
    return int(answer["pid"])


def until(nursery: socket.socket, child: int) -> int:
    """How it ended, as `waitpid` tells it."""

    def pass_on(number: int, _: Any) -> None:
        os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    answer = nursery.recv(MOST_ANSWER)
    return int(json.loads(answer)["status"]) if answer else signal.SIGKILL


def main(place: str, words: list[str]) -> int:
    nursery = socket.socket(socket.AF_UNIX)
    try:
        nursery.connect(place)
        child = hand_over(nursery, words)
    except (OSError, ValueError):
        nursery.close()
        os.execv(words[0], words)  # noqa: S606  the very words that Ray gave
    status = until(nursery, child)
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status) & 0xFF


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
