"""What a child of the nursery's is to be, out of the words and the environment that Ray would start it with; or why it can't be forked.

A forked child has Ray, its libraries and Python itself as they were loaded. So whatever is read while they are loaded has to be what it
was then, and no file of the job's may bear the name of a module that is there already.
"""

import importlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

PLANTED = {"RAY_JOB_ID": "c1a05e1d", "RAY_RAYLET_PID": "2147480000"}
"""What these hold while Ray is loaded: as long as their values can become."""
BY_PIPE = "RAY_enable_pipe_based_agent_to_parent_health_check"
NICENESS = "RAY_worker_niceness"
TOLD_LATER = {
    *PLANTED,
    BY_PIPE,
    "RAY_ADDRESS",
    "RAY_CLIENT_MODE",
    "RAY_LD_PRELOAD_ON_WORKERS",
    "RAY_NODE_ID",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC",
    NICENESS,
}
"""Read when they are needed, planted, or told below: these may differ from what they were when Ray was loaded."""
NOT_LOADED = (
    "PYTHONUNBUFFERED",
    "RAY_DATA_",
    "RAY_EXPERIMENTAL_NOSET_",
    "RAY_JOB_",
    "RAY_SERVE_",
    "RAY_TRAIN_",
)
"""Of parts of Ray's that aren't loaded yet, or set by jobs' supervisors and read as they are needed."""
LOADED_BY = ("RAY_", "PYTHON", "LD_", "MALLOC_", "GRPC_", "GLIBC_")
"""Names that begin so are read while Python, its libraries or Ray are loaded."""
PATH = "PYTHONPATH"
SET_UP = "setup_worker.py"
CONTEXT = "--serialized-runtime-env-context="
LANGUAGE = "--language="


class Declined(Exception):
    """This one can't be forked; why stands in the message."""


class Birth(NamedTuple):
    """What a child is to be.

    Attributes:
        how: `-m` for a module's name, `-c` for a program's text, else empty.
        what: the name, the text, or the program's path.
        environment: after the job's own was laid over the process's.
    """

    how: str
    what: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str

    @classmethod
    def of(
        cls, words: Sequence[str], environment: Mapping[str, str], folder: str, loaded: Mapping[str, str]
    ) -> "Birth":
        """
        Args:
            loaded: the environment in which Ray was loaded.

        Raises:
            Declined.
        """
        python, *rest = words
        later = dict(environment)
        if rest and rest[0].endswith("/" + SET_UP):
            rest, context = _set_up(rest[1:])
            if context.get("py_executable", python) != python:
                raise Declined("another Python")
            if context.get("override_worker_entrypoint"):
                raise Declined("another entry")
            folder = _folder(context.get("command_prefix") or [], folder)
            own: dict[str, str] = context.get("env_vars") or {}
            later |= {name: expanded(text, later) for name, text in own.items()}
        for name in later.keys() | loaded.keys():
            same = name == PATH or later.get(name) == loaded.get(name)
            if name.startswith(LOADED_BY) and not same and not _is_later(name, later.get(name, "")):
                raise Declined(f"{name} was another when Ray was loaded")
        while rest and rest[0] == "-u":
            rest = rest[1:]
        if not rest:
            raise Declined("no program")
        if rest[0] in ("-m", "-c") and len(rest) > 1:
            return cls(rest[0], rest[1], rest[2:], later, folder)
        if rest[0].startswith("-"):
            raise Declined(f"the option {rest[0]}")
        return cls("", rest[0], rest[1:], later, folder)


def _is_later(name: str, text: str) -> bool:
    """Whether it may be told later; Ray's allocator is as good as the system's."""
    if name == "LD_PRELOAD":
        return text.endswith("/ray/core/libjemalloc.so")
    return name in TOLD_LATER or name.startswith(NOT_LOADED)


def _set_up(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """What Ray's own set-up makes of a worker's words: the rest, and the context."""
    rest: list[str] = []
    context: dict[str, Any] = {}
    for word in words:
        if word.startswith(CONTEXT):
            context = json.loads(word.removeprefix(CONTEXT) or "{}")
        elif word.startswith(LANGUAGE):
            if word != LANGUAGE + "PYTHON":
                raise Declined(word)
        else:
            rest.append(word)
    return rest, context


def _folder(prefix: Sequence[str], folder: str) -> str:
    """Where a shell would be after these words."""
    if not prefix:
        return folder
    if len(prefix) == 3 and prefix[0] == "cd" and prefix[2] == "&&" and re.fullmatch(r"[\w./-]+", prefix[1]):
        return prefix[1]
    raise Declined("a command before it")


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """As Ray does it: ${NAME} by its value, or by nothing."""
    found = re.sub(r"\$(\w+|\{[^}]*\})", lambda it: environment.get(it[1].strip("{}"), it[0]), text)
    return re.sub(r"\$\{[A-Z0-9_]+\}", "", found)


def hidden(folders: Sequence[str], modules: Mapping[str, Any]) -> str:
    """Of the job's own files, one whose name is a module's that is loaded already, or that Python would run at its start."""
    names = {name.partition(".")[0] for name in modules} | {"sitecustomize", "usercustomize"}
    for folder in folders:
        try:
            found = list(Path(folder).iterdir())
        except OSError:
            continue
        for it in found:
            is_module = it.suffix in (".py", ".so", ".pyc") or (it / "__init__.py").exists()
            if is_module and it.name.partition(".")[0] in names:
                return it.name
    return ""


def run(birth: Birth) -> None:
    """As Python itself would begin it."""
    own = str(Path(__file__).parent)
    first = "" if birth.how == "-c" else birth.folder if birth.how else str(Path(birth.what).parent)
    paths = [it for it in birth.environment.get(PATH, "").split(":") if it]
    at = sys.path.index(own) if own in sys.path else 0
    sys.path[at : at + 1] = [first, *paths]
    for name, module in list(sys.modules.items()):
        if str(Path(getattr(module, "__file__", None) or "/").parent) == own:
            del sys.modules[name]
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = main
    if birth.how == "-m":
        runpy: Any = importlib.import_module("runpy")
        sys.argv = ["-m", *birth.arguments]
        runpy._run_module_as_main(birth.what)
        return
    text = birth.what
    sys.argv = ["-c", *birth.arguments]
    if not birth.how:
        main.__file__ = birth.what
        text = Path(birth.what).read_text()
        sys.argv[0] = birth.what
    exec(compile(text, birth.what if not birth.how else "<string>", "exec"), main.__dict__)  # noqa: S102
