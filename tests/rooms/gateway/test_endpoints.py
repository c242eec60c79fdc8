"""The registry of paid endpoints: what a kind of work brings is reachable, described, and priced."""

import json

from clusterai.gateway.adapters.endpoints import BY_PATH, ENDPOINTS
from clusterai.gateway.adapters.pages import OPENAPI
from clusterai.work import KINDS


def test_kinds_bring_endpoints_that_the_openapi_file_describes() -> None:
    """Each is registered under a kind that exists, at a path of its own that takes POST and can be paid by wallet."""
    assert set(ENDPOINTS) <= set(KINDS)
    assert len(BY_PATH) == sum(map(len, ENDPOINTS.values()))
    described = json.loads(OPENAPI.read_bytes())["paths"]
    assert {path: "402" in described[path]["post"]["responses"] for path in BY_PATH} == dict.fromkeys(
        BY_PATH, True
    )
