"""Where other people's programs are that tests run against ours: `scripts/install.py` makes their environments."""

from pathlib import Path

from scripts import install


def python_of(name: str) -> Path:
    """Python of the environment that `scripts/peers/NAME.txt` describes. A test without it fails: it proves nothing."""
    python = install.peer(install.PEERS / f"{name}.txt", install.HOME / "peers" / name)
    assert python is not None, (
        f"{name} isn't installed as scripts/peers/{name}.txt wants it: make install-peers"
    )
    return python
