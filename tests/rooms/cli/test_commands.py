"""What a command line says and returns when there is nothing to speak to, or when it is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.main import run

HEAVY = {
    "openvino",
    "numpy",
    "aiohttp",
    "httpx",
    "web3",
    "rich",
    "eth_account",
    "starlette",
    "pyrevm",
    "uvicorn",
}


def test_help_loads_nothing_heavy():
    """`clusterai --help` answers at once because it imports none of the parts that take their time."""
    code = (
        "import sys; from clusterai.cli.main import run; run(['--help']);"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Start a network" in done.stdout
    assert not HEAVY & set(done.stderr.split())


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("clusterai.node.adapters.earnings", {"numpy", "sqlglot", "jinja2", "aiohttp", "httpx", "eth_abi"}),
        ("clusterai.cli.asking", {"numpy", "sqlglot", "jinja2", "aiohttp", "eth_abi"}),
        ("clusterai.cli.staking", {"numpy", "sqlglot", "jinja2", "httpx"}),
        ("clusterai.cli.doctor", {"sqlglot", "openvino"}),
    ],
)
def test_a_command_loads_no_library_of_work_that_it_does_not_do(module: str, spared: set[str]):
    """What reads earnings, asks for grants, stakes or examines a machine waits for no other kind of work."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not spared & set(done.stdout.split())


@pytest.mark.parametrize(
    "command", [["status"], ["down"], ["receipt", "list"], ["account"], ["stake"], ["demo", "cheat"]]
)
def test_without_a_network_the_cure_is_named(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Exit code 3, nothing on stdout, and the command that starts one."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("CLUSTERAI_BASE_URL", raising=False)
    assert run([*command, "--data", str(tmp_path / "nothing")]) == Exit.NOT_RUNNING
    said = capsys.readouterr()
    assert said.out == ""
    assert "clusterai up" in said.err


def test_a_wrong_command_line_is_exit_code_2(capsys: pytest.CaptureFixture[str]):
    """An unknown command or a value out of range is the caller's mistake."""
    assert run(["bogus"]) == Exit.USAGE
    assert run(["up", "--nodes", "0"]) == Exit.USAGE
    assert "bogus" in capsys.readouterr().err


def test_dry_run_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """`up --dry-run` says which processes and ports it would use, and makes no folder."""
    data = tmp_path / "data"
    assert run(["up", "--dry-run", "--json", "--data", str(data), "--nodes", "3"]) == Exit.OK
    assert '"node-3"' in capsys.readouterr().out
    assert not data.exists()


def test_a_failure_says_what_why_and_what_next():
    """The three lines that a person reads; those without content are left out."""
    assert Failure("it broke", "the disk is full", "df -h").lines() == [
        "error: it broke",
        "  why:  the disk is full",
        "  next: df -h",
    ]
    assert Failure("it broke").lines() == ["error: it broke"]


def test_a_file_that_is_no_model_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """`model add` of something else names the file and doesn't keep it."""
    file = tmp_path / "not-a-model.gguf"
    file.write_bytes(b"GGUX" * 100)
    assert run(["model", "add", str(tmp_path / "missing.gguf")]) == Exit.NOT_FOUND
    assert run(["model", "add", str(file)]) == Exit.FAILED
    assert "not-a-model.gguf" in capsys.readouterr().err
