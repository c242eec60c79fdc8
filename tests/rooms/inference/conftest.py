"""One store for all tests of the real model, so that it is converted once."""

import pytest

from clusterai.models import ModelStore


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore(tmp_path_factory.mktemp("models"))
