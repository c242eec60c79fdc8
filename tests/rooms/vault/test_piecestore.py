"""A vault's pieces may lie anywhere: what is read is what was put in, what goes wrong there costs nobody anything, and is told with its cure."""

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from fsspec.implementations.memory import MemoryFileSystem  # pyright: ignore[reportMissingTypeStubs]

from clusterai.cli import main as cli
from clusterai.cli.failure import Exit
from clusterai.protocol.ids import Digest
from clusterai.vault.adapters.doctor import examine
from clusterai.vault.adapters.founding import move_pieces
from clusterai.vault.adapters.piecestore import (
    AtUrl,
    Gone,
    OnDisk,
    PieceStore,
    StoreFault,
    fault,
    piece_store,
    place_in,
    tried,
)
from clusterai.vault.adapters.storage import Damaged
from clusterai.vault.core.terms import Denied
from tests.rooms.vault.vaultbed import Bed, csv_file

BOXES = {blake3(box).digest(): box for box in (b"one", b"two" * 1000)}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What lies in fsspec's memory lies there for the whole process."""
    yield
    MemoryFileSystem.store.clear()  # pyright: ignore[reportUnknownMemberType]


@pytest.fixture(params=["disk", "memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PieceStore:
    match request.param:
        case "disk":
            return piece_store(tmp_path / "pieces")
        case "memory":
            return piece_store(tmp_path, "memory://hospital/wards")
        case _:
            return AtUrl((tmp_path / "far").as_uri())


def test_a_piece_is_got_as_it_was_put(store: PieceStore) -> None:
    """Put, got, found, put again, taken away twice; and what isn't there is said to be gone."""
    assert list(store.addresses()) == []
    tried(store)
    for _ in range(2):
        for address, box in BOXES.items():
            store.put(address, box)
    first, second = BOXES
    assert sorted(store.addresses()) == sorted(BOXES)
    assert [store.get(it) for it in BOXES] == list(BOXES.values())
    store.look(first)
    for _ in range(2):
        store.remove(first)
    assert list(store.addresses()) == [second]
    for act in (store.get, store.look):
        with pytest.raises(Gone):
            act(first)


def lying() -> set[str]:
    return {path for path in MemoryFileSystem.store if path.startswith("/hospital/")}


def breaks(monkeypatch: pytest.MonkeyPatch, error: Exception, *acts: str) -> Callable[[], None]:
    """fsspec's memory fails at these, until what is returned is called."""
    whole = {act: getattr(MemoryFileSystem, act) for act in acts}

    def failing(*_: Any, **__: Any) -> Any:
        raise error

    for act in acts:
        monkeypatch.setattr(MemoryFileSystem, act, failing)

    def mend() -> None:
        for act, done in whole.items():
            monkeypatch.setattr(MemoryFileSystem, act, done)

    return mend


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Bed]:
    """A vault whose pieces lie at a URL."""
    bed = Bed(tmp_path)
    bed.close()
    bed.folder = move_pieces(bed.folder, "memory://hospital")
    bed.open()
    yield bed
    bed.close()


def test_a_vault_elsewhere_is_the_same_vault(far: Bed) -> None:
    """Rows, snapshot, a use, keys anew: nothing in the clear leaves, and old pieces are gone from there too."""
    assert not list(far.folder.store.glob("pieces/??/*"))
    assert far.folder.named.store.startswith("memory://hospital/wards-")
    before = lying()
    assert len(before) == 1
    assert far.vault.columns(["age"])["age"].tolist()[:2] == [20, 21]
    assert b"is the mayor" not in b"".join(bytes(it.getvalue()) for it in MemoryFileSystem.store.values())
    snapshot, grant = far.vault.snapshot, far.grant()
    far.vault.spend(grant, Digest(b"o" * 32), 1_000)
    far.vault.revoke(grant, 2)
    far.vault.tick()
    assert len(lying()) == 1
    assert not lying() & before
    far.restart()
    assert far.vault.snapshot == snapshot
    assert far.vault.columns(["age"])["age"].tolist()[:2] == [20, 21]
    far.close()
    back = move_pieces(far.folder, "")
    assert back.named.store == ""
    assert lying() == set()
    far.open()
    assert len(far.vault.columns(["age"])["age"]) == 30


def test_nothing_is_spent_while_the_data_cant_be_read(far: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that is away refuses a use before its ε is spent, is told to the owner, and stops neither the vault's start nor its end."""
    grant = far.grant()
    mend = breaks(monkeypatch, ConnectionError("secret.example: refused"), "info", "cat_file", "find")
    with pytest.raises(Denied, match="nothing was spent") as no:
        far.vault.spend(grant, Digest(b"o" * 32), 1_000)
    assert no.value.code == "unreachable"
    assert "hospital" not in no.value.detail
    far.restart()
    far.now_s += 31
    assert [row.state for row in examine(far.folder.root) if row.name == "pieces"] == ["red"]
    with pytest.raises(StoreFault, match=r"memory://hospital/.*can't be reached") as told:
        far.vault.tick()
    assert "secret.example" not in str(told.value)
    mend()
    assert [row.state for row in examine(far.folder.root) if row.name == "pieces"] == ["green"]
    far.vault.tick()
    assert far.vault.spend(grant, Digest(b"o" * 32), 1_000).epsilon_micro == 1_000
    assert far.vault.left_micro(far.identity.address) == 3_000_000 - 1_000


def test_a_full_place_delays_new_keys_and_nothing_else(far: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was revoked is out at once; what was half written is taken away; later the keys are made anew."""
    grant = far.grant()
    before = lying()
    mend = breaks(monkeypatch, OSError(errno.ENOSPC, "no space"), "pipe_file")
    far.vault.revoke(grant, 2)
    with pytest.raises(StoreFault, match="is full: make room"):
        far.vault.tick()
    assert lying() == before
    with pytest.raises(Denied, match="revoked"):
        far.vault.spend(grant, Digest(b"o" * 32), 0)
    mend()
    far.vault.tick()
    assert far.vault.key_epoch == 0, "not each second"
    far.now_s += 31
    far.vault.tick()
    assert far.vault.key_epoch == 1
    assert not lying() & before


def test_an_old_copy_of_the_folder_deletes_nothing_of_the_newer(far: Bed) -> None:
    """A backup whose pieces are gone is told so; those of the vault that went on stay."""
    manifest = (far.folder.store / "keys.sqlite").read_bytes()
    far.vault.revoke(far.grant(), 2)
    far.vault.tick()
    newer = lying()
    far.close()
    for left in far.folder.store.glob("keys.sqlite*"):
        left.unlink()
    (far.folder.store / "keys.sqlite").write_bytes(manifest)
    far.open()
    assert lying() == newer
    with pytest.raises(Damaged, match="restore memory://hospital"):
        far.vault.columns(["age"])


def test_a_piece_that_was_changed_there_is_refused(far: Bed) -> None:
    """Whoever keeps the bucket can spoil what lies there, and pass nothing off as data."""
    [path] = lying()
    MemoryFileSystem().pipe_file(path, b"rows of their own")  # pyright: ignore[reportUnknownMemberType]
    with pytest.raises(Damaged, match="changed where it lies"):
        far.vault.columns(["age"])


class NoCredentialsError(Exception):
    """As botocore names its own."""


def test_each_fault_names_its_cure_and_no_secret() -> None:
    """Unreachable, no permission, full, not there, no library: what a server said isn't repeated."""
    said = "key AKIAEXAMPLE, signature c2VjcmV0"
    for error, code, cure in (
        (ConnectionError(said), "unreachable", "AWS_ENDPOINT_URL"),
        (TimeoutError(said), "unreachable", "network"),
        (PermissionError(said), "forbidden", "AWS_ACCESS_KEY_ID"),
        (NoCredentialsError(said), "forbidden", "AWS_ACCESS_KEY_ID"),
        (OSError(errno.EDQUOT, said), "full", "make room"),
        (RuntimeError(f"QuotaExceeded {said}"), "full", "make room"),
        (FileNotFoundError(said), "missing", "make its bucket"),
        (ImportError(said), "unreachable", "pip install clusterai[data]"),
        (ValueError("Protocol not known: s9"), "unreachable", "fsspec"),
    ):
        told = fault("s3://bucket/wards", error)
        assert told.code == code
        assert cure in str(told)
        assert "AKIA" not in str(told)
        assert "c2V" not in str(told)


@pytest.mark.parametrize(
    "url",
    [
        "bucket/prefix",
        "s3://",
        "s3://AKIA:c2VjcmV0@bucket/x",
        "s3://bucket/x?secret=c2VjcmV0",
        "https://example.com/x",
        "file://host/x",
        "simplecache::s3://bucket/x",
        "memory://x",
    ],
)
def test_what_is_no_place_is_refused_before_anything_is_made(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a password in a URL is never said again."""
    data = csv_file(tmp_path / "data.csv")
    made = ["vault", "init", str(tmp_path / "v"), "--from", str(data), "--free", "--yes", "--store", url]
    assert cli.run([*made, "--key", str(tmp_path / "k")]) == Exit.USAGE
    assert "c2VjcmV0" not in "".join(capsys.readouterr())
    assert not (tmp_path / "v").exists()


def test_typed_by_an_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder elsewhere at init, shown, moved home and out again; two vaults under one URL don't meet."""
    data, bucket = csv_file(tmp_path / "data.csv"), tmp_path / "disk of another"
    for name in ("one", "two"):
        made = ["vault", "init", str(tmp_path / name), "--name", "wards", "--from", str(data), "--free"]
        asked = ["--yes", "--key", str(tmp_path / f"{name}.key"), "--store", bucket.as_uri()]
        assert cli.run([*made, *asked]) == Exit.OK
    assert len(list(bucket.glob("wards-*/??/*"))) == 2
    capsys.readouterr()
    assert cli.run(["vault", "show", str(tmp_path / "one"), "--json"]) == Exit.OK
    shown = json.loads(capsys.readouterr().out)
    assert shown["store"].startswith(f"{bucket.as_uri()}/wards-")
    assert shown["rows"] == 30
    assert cli.run(["vault", "move", str(tmp_path / "one"), "--yes"]) == Exit.OK
    assert len(list(bucket.glob("wards-*/??/*"))) == 1
    assert len(list((tmp_path / "one").glob("store/pieces/??/*"))) == 1
    again = ["vault", "replace", str(tmp_path / "two"), "--from", str(data), "--yes"]
    assert cli.run(again) == Exit.OK
    assert len(list(bucket.glob("wards-*/??/*"))) == 1
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert cli.run(["vault", "move", str(tmp_path / "one"), "--store", f"{blocked.as_uri()}/x", "--yes"]) == 1
    assert "they lie where they lay" in capsys.readouterr().err
    assert len(list((tmp_path / "one").glob("store/pieces/??/*"))) == 1


def test_a_place_of_its_own_is_named_after_the_vault() -> None:
    """So that somebody who looks into the bucket knows whose it is, and sweeping touches nothing else."""
    names = {place_in("s3://bucket/prefix/", "wards") for _ in range(3)}
    assert all(it.startswith("s3://bucket/prefix/wards-") for it in names)
    assert isinstance(piece_store(Path("x"), "file:///y"), OnDisk)
