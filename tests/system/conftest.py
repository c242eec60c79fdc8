"""Networks for tests."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.system.running import UP, Network


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a network's processes logged as errors is told with a failure: its folder is gone before anybody reads the report."""
    report = yield
    if report.failed:
        report.sections.extend((f"errors in {it.data}", it.errors()) for it in UP)
    return report


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network with the toy model, shared by a module's tests."""
    running = Network(tmp_path_factory.mktemp("network") / "data")
    try:
        yield running.up()
    finally:
        running.stop()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Network]:
    """A network that isn't up yet; it is down after the test."""
    made = Network(tmp_path / "data")
    yield made
    made.stop()
