"""The environments that tests run other people's programs in: made once, made anew when their pins change."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts import install
from tests.rooms.gateway import peers


def wheel(folder: Path, version: str) -> Path:
    """A package without dependencies, so that nothing is fetched."""
    path = folder / f"pebble-{version}-py3-none-any.whl"
    about = f"pebble-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as it:
        it.writestr("pebble.py", f"VERSION = {version!r}\n")
        it.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: pebble\nVersion: {version}\n")
        it.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        it.writestr(f"{about}/RECORD", "")
    return path


def holds(python: Path | None) -> str:
    assert python is not None
    done = subprocess.run(
        [python, "-c", "import pebble; print(pebble.VERSION)"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["langchain", "litellm", "schemathesis"])
def test_every_peer_is_pinned_to_the_last_dependency(name: str):
    """Each line of a list names one version, as nothing is resolved when it is installed."""
    lines = (install.PEERS / f"{name}.txt").read_text().splitlines()
    assert all(line.startswith("#") or line.count("==") == 1 for line in lines)


def test_two_installers_at_once_make_one_environment_and_new_pins_a_new_one(tmp_path: Path):
    """The second waits for the first; what was pinned otherwise isn't passed off as what is pinned now."""
    pins, home = tmp_path / "pebble.txt", tmp_path / "peers" / "pebble"
    pins.write_text(f"{wheel(tmp_path, '1.0')}\n")
    assert install.peer(pins, home) is None
    program = "import sys; from pathlib import Path; from scripts.install import make_peer; make_peer(*map(Path, sys.argv[1:]))"
    command = [sys.executable, "-c", program, str(pins), str(home), sys.executable]
    starts = [
        subprocess.Popen(command, cwd=install.ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = [it.communicate(timeout=120)[1] for it in starts]
    assert [it.returncode for it in starts] == [0, 0, 0], said
    assert sum(it.count("installing pebble") for it in said) == 1
    assert holds(install.peer(pins, home)) == "1.0"
    pins.write_text(f"{wheel(tmp_path, '2.0')}\n")
    assert install.peer(pins, home) is None
    install.make_peer(pins, home, Path(sys.executable))
    assert holds(install.peer(pins, home)) == "2.0"


def test_a_missing_environment_fails_and_names_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No client is passed over in silence."""
    monkeypatch.setattr(install, "HOME", tmp_path)
    with pytest.raises(AssertionError, match="make install-peers"):
        peers.python_of("litellm")
