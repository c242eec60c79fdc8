"""One vault a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rooms.vault.vaultbed import Bed


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path)
    yield made
    made.close()
