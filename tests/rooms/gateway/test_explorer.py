"""The explorer: three small files that a browser may trust, reading endpoints that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rooms.gateway.bed import Bed


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with Bed(tmp_path_factory.mktemp("explorer"), providers=0, wallets=False) as it:
        yield it


def test_the_page_may_load_nothing_from_elsewhere(bed: Bed) -> None:
    """Whatever a peer's text would want, the browser runs only this gateway's own script."""
    for path, kind in (
        ("/", "text/html"),
        ("/explorer.js", "text/javascript"),
        ("/explorer.css", "text/css"),
    ):
        status, headers, body = bed.fetch("GET", path)
        assert status == 200
        assert headers["content-type"].startswith(kind)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert b"https://" not in body
    script = bed.fetch("GET", "/explorer.js")[2]
    assert b"innerHTML" not in script
    assert b"insertAdjacentHTML" not in script


def test_every_endpoint_that_the_page_reads_is_there(bed: Bed) -> None:
    """The paths in the script are served, and are in the OpenAPI file."""
    script = bed.fetch("GET", "/explorer.js")[2].decode()
    known = json.loads(bed.fetch("GET", "/openapi.json")[2])["paths"]
    read = set(re.findall(r"[\"`](/v1/clusterai/[a-z]+)", script))
    assert len(read) >= 5
    for path in read:
        assert path in known
        assert bed.fetch("GET", path, key=bed.key)[0] == 200


def test_every_file_is_in_the_package() -> None:
    """What the page asks for lies beside it."""
    web = Path(__file__).parents[3] / "src" / "clusterai" / "gateway" / "web"
    page = (web / "index.html").read_text()
    for name in re.findall(r'(?:href|src)="/(explorer\.[a-z]+)"', page):
        assert (web / name).is_file()
