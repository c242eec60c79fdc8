"""Ray's programs forked instead of loaded: just so where they can be, started as ever where they can't, gone with whoever asked."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from clusterai.work.cluster import inside
from clusterai.work.cluster.inside.births import CONTEXT, Birth, Declined, expanded, hidden
from tests.rooms.cluster.renting import environment

PYTHON = "/ray/bin/python"
SET_UP = "/ray/setup_worker.py"
WORKER = "/ray/default_worker.py"
DEADLINE_S = 120.0
FOLDER = Path(inside.__file__).parent
TELLS = """
import json, os, sys
print(json.dumps({"words": sys.argv, "said": sys.stdin.read(), "folder": os.getcwd(), "word": os.environ.get("WORD"),
    "file": os.read(int(sys.argv[1]), 99).decode(), "parent": open(f"/proc/{os.getppid()}/cmdline").read(),
    "main": sorted(it for it in globals() if not it.startswith("__")), "executable": sys.executable, "path": sys.path,
    "ours": sorted(sys.modules.keys() & {"births", "keeper", "lighter", "nursery", "planted"})}))
sys.exit(7)
"""


def birth(
    *words: str, environment: dict[str, str] | None = None, loaded: dict[str, str] | None = None
) -> Birth:
    return Birth.of((PYTHON, *words), environment or {}, "/job", loaded or {})


def worker(**context: Any) -> Birth:
    """As a raylet starts one."""
    return birth(SET_UP, WORKER, "--port=1", "--language=PYTHON", CONTEXT + json.dumps(context))


def test_a_worker_is_born_as_its_set_up_would_start_it():
    """Its job's folder and variables are its own, and the words for the set-up aren't."""
    born = worker(
        command_prefix=["cd", "/tmp/ray/its_files", "&&"],
        env_vars={"PYTHONPATH": "/tmp/ray/its_files", "WHO": "${NOBODY}me"},
        py_executable=PYTHON,
    )
    assert (born.how, born.what, born.arguments) == ("", WORKER, ["--port=1"])
    assert born.folder == "/tmp/ray/its_files"
    assert born.environment == {"PYTHONPATH": "/tmp/ray/its_files", "WHO": "me"}


@pytest.mark.parametrize(
    "context",
    [
        {"py_executable": "/other/python"},
        {"override_worker_entrypoint": "/other.py"},
        {"command_prefix": ["source", "activate", "&&"]},
        {"command_prefix": ["cd", "/job; reboot", "&&"]},
        {"env_vars": {"PYTHONHASHSEED": "0"}},
        {"env_vars": {"LD_PRELOAD": "/job/own.so"}},
        {"env_vars": {"RAY_scheduler_spread_threshold": "1"}},
    ],
)
def test_what_was_read_while_ray_was_loaded_can_not_be_told_later(context: dict[str, Any]):
    """Another Python, another entry, other commands, and variables that Python, the linker or Ray read at their start."""
    with pytest.raises(Declined):
        worker(**context)


def test_a_variable_that_a_program_lacks_is_another_too():
    """Who asks without what was there when Ray was loaded is declined."""
    with pytest.raises(Declined):
        birth("-m", "program", loaded={"RAY_AUTH_MODE": "token"})


@pytest.mark.parametrize(
    ("words", "how", "what", "arguments"),
    [
        (("-u", "/a.py", "b"), "", "/a.py", ["b"]),
        (("-m", "a.b", "c"), "-m", "a.b", ["c"]),
        (("-c", "pass"), "-c", "pass", []),
    ],
)
def test_a_program_in_each_of_python_s_ways(
    words: tuple[str, ...], how: str, what: str, arguments: list[str]
):
    """A file, a module, a text; unbuffered or not, as the nursery is unbuffered."""
    assert birth(*words)[:3] == (how, what, arguments)


@pytest.mark.parametrize("words", [(), ("-u",), ("-m",), ("-I", "/a.py"), ("-X", "dev", "/a.py")])
def test_other_options_are_declined(words: tuple[str, ...]):
    """What Python itself would have had to be told as it began."""
    with pytest.raises(Declined):
        birth(*words)


def test_variables_are_put_in_as_ray_puts_them_in():
    """By their value, by nothing where Ray's own form names none, and as they are otherwise."""
    assert expanded("${A}:$A:${B}:$B", {"A": "1"}) == "1:1::$B"


def test_a_job_s_file_may_not_hide_behind_a_module(tmp_path: Path):
    """Its own `requests.py` is its own, though Ray loaded another of the name; a folder without code is none."""
    modules = {"requests.sessions": None, "ray": None}
    (tmp_path / "ray").mkdir()
    (tmp_path / "train.py").touch()
    assert hidden([str(tmp_path)], modules) == ""
    (tmp_path / "requests.py").touch()
    assert hidden([str(tmp_path)], modules) == "requests.py"
    (tmp_path / "requests.py").unlink()
    (tmp_path / "ray" / "__init__.py").touch()
    assert hidden([str(tmp_path)], modules) == "ray"
    assert hidden(["/nowhere"], modules) == ""


class Running:
    """A keeper with its nursery, outside of any sandbox."""

    def __init__(self, folder: Path) -> None:
        self.python = f"{environment()}/bin/python"
        # Python's own variables are left out: they'd be another when Ray is loaded.
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder)}
        self._log = (folder / "log").open("w+b")
        self._keeper = subprocess.Popen(
            [self.python, "-u", FOLDER / "keeper.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self.environment,
        )
        assert self._keeper.stdout
        assert json.loads(self._keeper.stdout.readline()) == {"said": "up"}
        (self.place,) = folder.glob("*/nursery")

    def start(
        self, *words: str, files: Sequence[int] = (), cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        command = [self.python, "-I", "-S", FOLDER / "standin.py", self.place, self.python, *words]
        pipe = subprocess.PIPE
        env = {**self.environment, "WORD": "of its own"}
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env, pass_fds=files, cwd=cwd)

    @property
    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    def end(self) -> None:
        assert self._keeper.stdin
        assert self._keeper.stdout
        self._keeper.stdin.close()
        self._keeper.wait(DEADLINE_S)
        self._keeper.stdout.close()
        self._log.close()


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    it = Running(tmp_path_factory.mktemp("nursery"))
    try:
        yield it
    finally:
        it.end()


def told(process: subprocess.Popen[bytes], said: bytes = b"") -> tuple[int, Any]:
    out, _ = process.communicate(said, DEADLINE_S)
    return process.returncode, json.loads(out)


def test_ray_is_loaded_as_the_nursery_must_find_it(nursery: Running):
    """The pinned Ray loads without a thread, and keeps a worker's job where it can be told anew."""
    assert nursery.log == ""


def test_a_child_is_the_program_itself(nursery: Running, tmp_path: Path):
    """Its words, input, folder, environment, open files and end are what Ray gave, and nothing of ours is in it."""
    program = tmp_path / "tells.py"
    program.write_text(TELLS)
    (tmp_path / "open").write_text("what stands in it")
    with (tmp_path / "open").open() as file:
        number = file.fileno()
        started = nursery.start(str(program), str(number), "b", files=[number], cwd=tmp_path)
        code, it = told(started, b"hello")
    assert code == 7
    assert (it["words"], it["said"]) == ([str(program), str(number), "b"], "hello")
    assert (it["folder"], it["word"], it["file"]) == (str(tmp_path), "of its own", "what stands in it")
    assert "keeper.py" in it["parent"]
    assert it["main"] == ["json", "os", "sys"]
    assert str(tmp_path) in it["path"]
    assert str(FOLDER) not in it["path"]
    assert it["ours"] == []
    assert it["executable"] == nursery.python


def test_what_is_declined_is_started_as_ever(nursery: Running, tmp_path: Path):
    """A program that would find a module of Ray's in its own file's place is run by a Python of its own."""
    (tmp_path / "requests.py").write_text("mine = True")
    words = ("-m", "asked")
    (tmp_path / "asked.py").write_text(
        "import json, os, requests; print(json.dumps([requests.mine, open(f'/proc/{os.getppid()}/cmdline').read()]))"
    )
    code, (mine, parent) = told(nursery.start(*words, cwd=tmp_path))
    assert (code, mine) == (0, True)
    assert "keeper.py" not in parent


def test_who_is_killed_takes_the_child_along(nursery: Running, tmp_path: Path):
    """Ray kills the process that it started; what did the work is gone as well."""
    waits = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(600)"
    process = nursery.start("-c", waits, cwd=tmp_path)
    assert process.stdout
    child = os.pidfd_open(int(process.stdout.readline()))
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == -signal.SIGKILL
    _gone(child)


def test_a_child_that_is_killed_ends_who_stands_for_it(nursery: Running, tmp_path: Path):
    """With the very signal, as whoever waits for it would see."""
    process = nursery.start("-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)", cwd=tmp_path)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == -signal.SIGTERM


def test_a_signal_is_passed_on(nursery: Running, tmp_path: Path):
    """What Ray tells the process that it started, the child hears and may answer."""
    program = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); print('1', flush=True); signal.pause()"
    process = nursery.start("-c", program, cwd=tmp_path)
    assert process.stdout
    process.stdout.readline()
    process.terminate()
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 5


def test_nobody_there(tmp_path: Path):
    """Without a nursery the program is started as ever."""
    python = f"{environment()}/bin/python"
    words = [python, "-I", "-S", FOLDER / "standin.py", tmp_path / "nobody", python, "-c", "print(4)"]
    assert subprocess.run(words, check=True, capture_output=True, timeout=DEADLINE_S).stdout == b"4\n"


def _gone(child: int) -> None:
    """A process is readable by its descriptor once it ended."""
    poll = select.poll()
    poll.register(child, select.POLLIN)
    assert poll.poll(DEADLINE_S * 1000)
    os.close(child)
