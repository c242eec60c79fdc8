"""What holds for every test of joint statistics."""

from collections.abc import Generator

import pytest

from tests.rooms.joint import clinics


@pytest.fixture(autouse=True)
def closed_vaults() -> Generator[None]:
    yield
    while clinics.OPEN:
        clinics.OPEN.pop().vault.close()
