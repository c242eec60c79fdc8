"""A bucket is a holder, and keeps a vault's pieces: SeaweedFS's S3, with keys and without."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterai.content import Landing, Web, fetch, fetch_manifest, open_source
from clusterai.content.adapters.fetching import NoManifest
from clusterai.content.adapters.folder import is_intact
from clusterai.vault.adapters.founding import move_pieces
from clusterai.vault.adapters.piecestore import AtUrl, StoreFault, tried
from scripts import install
from tests.ports import free_port
from tests.rooms.content.villains import PIECE, data_set, honest
from tests.rooms.vault.vaultbed import Bed

KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "only-for-tests"}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a SeaweedFS with one bucket, `sets`."""
    python = install.peer(install.PEERS / "seaweed.txt", install.HOME / "peers" / "seaweed")
    assert python is not None, (
        "seaweedfs isn't installed as scripts/peers/seaweed.txt wants it: make install-peers"
    )
    folder = tmp_path_factory.mktemp("seaweed")
    names = ("master", "volume", "filer", "s3", "admin")
    ports = [free_port() for _ in range(2 * len(names))]
    command = [
        str(python.parent / "weed"),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-bucket=sets",
    ]
    command += [
        "-master.telemetry=false",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    for name, port, grpc in zip(names, ports[::2], ports[1::2], strict=True):
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
    endpoint = f"http://127.0.0.1:{ports[2 * names.index('s3')]}"
    log = (folder / "log").open("wb")
    with (
        log,
        subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **KEYS, "HOME": str(folder)}, cwd=folder
        ) as server,
    ):
        try:
            wait_for_bucket(endpoint, server)
            yield endpoint
        finally:
            server.send_signal(signal.SIGKILL)  # to end in order takes it half a minute


def wait_for_bucket(endpoint: str, server: "subprocess.Popen[bytes]") -> None:
    import time

    import httpx

    until_s = time.monotonic() + 60
    with httpx.Client(trust_env=False) as client:
        while server.poll() is None and time.monotonic() < until_s:
            try:
                # Without keys a bucket that is there is forbidden, and one that isn't is missing.
                if client.get(f"{endpoint}/sets/").status_code == 403:
                    return
            except httpx.HTTPError:
                pass
            server.poll()
    raise AssertionError("SeaweedFS did not come up")


def test_a_bucket_and_a_server_of_ours(s3: str, tmp_path: Path) -> None:
    """Pieces come by ranges from both; a wrong key gets nothing and is said."""
    source = tmp_path / "source"
    source.mkdir()
    manifest = data_set(source)
    options = {
        "key": KEYS["AWS_ACCESS_KEY_ID"],
        "secret": KEYS["AWS_SECRET_ACCESS_KEY"],
        "client_kwargs": {"endpoint_url": s3, "region_name": "us-east-1"},
    }
    import fsspec  # pyright: ignore[reportMissingTypeStubs]

    bucket = fsspec.filesystem("s3", **options)  # pyright: ignore[reportUnknownVariableType]
    for path in source.rglob("*"):
        if path.is_file():
            bucket.pipe_file(f"sets/one/{path.relative_to(source).as_posix()}", path.read_bytes())

    async def play() -> None:
        async with Web(private=True) as web, honest(source, manifest) as ours:
            holder = open_source("s3://sets/one", web, options)
            assert await fetch_manifest(manifest.address(), [holder]) == manifest
            with Landing(tmp_path / "alone", manifest) as landing:
                got = await fetch(landing, [holder], run_bytes=4 * PIECE)
            assert got.shares[0].bytes == manifest.size
            with Landing(tmp_path / "both", manifest) as landing:
                await fetch(landing, [holder, open_source(ours, web)], run_bytes=2 * PIECE)
            stranger = open_source("s3://sets/one", web, {**options, "secret": "wrong"})
            with pytest.raises(NoManifest):
                await fetch_manifest(manifest.address(), [stranger])

    asyncio.run(play())
    for name in ("alone", "both"):
        assert is_intact(tmp_path / name, manifest) is None


def test_a_bucket_keeps_a_vaults_pieces(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials from the environment alone; keys anew; a wrong key, none and no server are told with their cure, and lose nothing."""
    import s3fs  # pyright: ignore[reportMissingTypeStubs]

    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bed = Bed(tmp_path)
    bed.close()
    bed.folder = move_pieces(bed.folder, "s3://sets/hospital")
    assert not list(bed.folder.store.glob("pieces/??/*"))
    bed.open()
    assert bed.vault.columns(["age"])["age"].tolist()[:3] == [20, 21, 22]
    grant = bed.grant()
    before = set(AtUrl(bed.folder.named.store).addresses())
    bed.vault.revoke(grant, 2)
    bed.vault.tick()
    after = set(AtUrl(bed.folder.named.store).addresses())
    assert (len(before), len(after), len(before & after)) == (1, 1, 0)
    assert len(bed.vault.columns(["age"])["age"]) == 30
    bed.close()

    def fault_of(**changes: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in changes.items():
                patch.setenv(name, value) if value else patch.delenv(name)
            s3fs.S3FileSystem.clear_instance_cache()  # pyright: ignore[reportUnknownMemberType]
            with pytest.raises(StoreFault) as told:
                tried(AtUrl(bed.folder.named.store))
        s3fs.S3FileSystem.clear_instance_cache()  # pyright: ignore[reportUnknownMemberType]
        assert KEYS["AWS_SECRET_ACCESS_KEY"] not in str(told.value)
        return told.value.code

    assert fault_of(AWS_SECRET_ACCESS_KEY="wrong") == "forbidden"
    assert fault_of(AWS_SECRET_ACCESS_KEY="", AWS_ACCESS_KEY_ID="") == "forbidden"
    assert fault_of(AWS_ENDPOINT_URL="http://127.0.0.1:9") == "unreachable"
    assert len(bed.open().columns(["age"])["age"]) == 30
    bed.close()
    assert move_pieces(bed.folder, "").named.store == ""
    # `bed.folder` is what it was before.
    assert list(AtUrl(bed.folder.named.store).addresses()) == []
