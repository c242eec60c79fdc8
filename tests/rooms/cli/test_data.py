"""`clusterai data`: a folder is published, held, fetched from several holders; what is wrong is said and remembered."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from clusterai.cli.datasets import fetching, publishing
from clusterai.cli.datasets.remembered import FORGOTTEN_S, Remembered
from clusterai.cli.failure import Exit
from clusterai.cli.main import run
from clusterai.content import Evidence, decode
from clusterai.content.core import card

ENVIRONMENT = {**os.environ, "NO_COLOR": "1"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    made = tmp_path / "numbers"
    made.mkdir()
    (made / "README.md").write_text(
        "---\npretty_name: Numbers\nlicense: cc0-1.0\ntags: [toy]\nlanguage: en\n---\n# Numbers\n\nSome of them.\n"
    )
    (made / "table.csv").write_text("n,half,word\n1,0.5,one\n2,1.0,two\n")
    (made / "big.bin").write_bytes(bytes(range(256)) * 4096 * 8)
    return made


def answered(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    capsys.readouterr()
    assert run(["data", *arguments, "--json"]) == Exit.OK
    return msgspec.json.decode(capsys.readouterr().out, type=dict[str, object])


def test_published_shown_and_fetched(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The card says what README.md and the table's header say; whoever has the address gets the same bytes."""
    published = answered(
        capsys, "publish", str(folder), "--offline", "--piece-kib", "64", "--holder", "https://a.example/n"
    )
    shown = answered(capsys, "show", str(folder))
    assert (shown["alternateName"], shown["license"], shown["keywords"]) == ("Numbers", "cc0-1.0", ["toy"])
    fields = msgspec.convert(shown["recordSet"], list[dict[str, object]])[0]["field"]
    kinds = [field["dataType"] for field in msgspec.convert(fields, list[dict[str, object]])]
    assert kinds == ["sc:Integer", "sc:Float", "sc:Text"]
    assert card.read(shown).manifest == published["address"]
    assert card.canonical(shown) == (folder / publishing.CARD).read_bytes()
    to = tmp_path / "to"
    got = answered(capsys, "fetch", str(published["address"]), "--to", str(to), "--holder", folder.as_uri())
    assert (got["fetched_bytes"], got["wrong"]) == (published["bytes"], 0)
    assert (to / "big.bin").read_bytes() == (folder / "big.bin").read_bytes()
    again = answered(capsys, "fetch", str(published["address"]), "--to", str(to), "--holder", folder.as_uri())
    assert again["fetched_bytes"] == 0


def test_the_card_is_croissant(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What Croissant requires of a data set and its files is there, with the digests that it knows."""
    answered(capsys, "publish", str(folder), "--offline")
    found = msgspec.json.decode((folder / publishing.CARD).read_bytes(), type=dict[str, object])
    assert {
        "@context",
        "@type",
        "conformsTo",
        "name",
        "description",
        "license",
        "version",
        "distribution",
    } <= set(found)
    files = msgspec.convert(found["distribution"], list[dict[str, str]])
    assert all(len(file["sha256"]) == 64 and file["@type"] == "cr:FileObject" for file in files)
    readme = (folder / ".clusterai/README.md").read_text()
    assert readme.startswith('---\npretty_name: "Numbers"\nlicense: "cc0-1.0"\n')


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("publish", "nowhere", "--offline"), Exit.NOT_FOUND),
        (("publish", ".", "--name", "No Name", "--offline"), Exit.FAILED),
        (("publish", ".", "--holder", "file:///etc", "--offline"), Exit.USAGE),
        (("publish", ".", "--piece-kib", "100", "--offline"), Exit.USAGE),
        (("hold", ".", "--listen", "8090"), Exit.USAGE),
        (("hold", "."), Exit.NOT_FOUND),
        (("fetch", "0x12", "--to", "x", "--holder", "file:///nowhere/at/all"), Exit.USAGE),
        (("fetch", "numbers", "--to", "x"), Exit.NOT_RUNNING),
        (("mock", "wards"), Exit.NOT_RUNNING),
        (("fetch", "0x" + "00" * 32, "--to", "x", "--holder", "file:///nowhere/at/all"), Exit.NOT_FOUND),
        (("fetch", "gopher://x", "--to", "x"), Exit.FAILED),
        (("show", "file:///nowhere/at/all"), Exit.NOT_FOUND),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: Exit
) -> None:
    """Each with its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    assert run(["data", *arguments]) == code


def test_a_corrupt_holder_is_remembered(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alone it fails with the code of an untruth; beside another it is left, and not asked the next time."""
    address = str(answered(capsys, "publish", str(folder), "--offline", "--piece-kib", "64")["address"])
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    subprocess.run(["cp", "-r", f"{folder}/.", str(spoilt)], check=True)
    (spoilt / "big.bin").write_bytes(bytes((folder / "big.bin").stat().st_size))
    alone = ["fetch", address, "--to", str(tmp_path / "a"), "--holder", spoilt.as_uri()]
    assert run(["data", *alone]) == Exit.UNTRUE
    assert Remembered.of_this_user().of(address) == {spoilt.as_uri()}
    both = answered(
        capsys,
        "fetch",
        address,
        "--to",
        str(tmp_path / "b"),
        "--holder",
        spoilt.as_uri(),
        "--holder",
        folder.as_uri(),
    )
    states = [share["state"] for share in msgspec.convert(both["holders"], list[dict[str, object]])]
    assert (states, both["wrong"]) == (["corrupt", "good"], 0)


def test_memory_is_bounded_and_ends(tmp_path: Path) -> None:
    """A week later a holder is asked again; lines that are no evidence are passed over."""
    import time

    memory = Remembered(tmp_path / "wrong.jsonl")
    now = int(time.time())
    memory.add((Evidence("a", "0x1", 0, "", "", now), Evidence("b", "0x1", 0, "", "", now - FORGOTTEN_S - 1)))
    with (tmp_path / "wrong.jsonl").open("ab") as file:
        file.write(b"{\n\xff\n")
    assert memory.of("0x1") == {"a"}
    memory.add(tuple(Evidence(str(n), "0x2", 0, "", "", now) for n in range(3000)))
    assert len(memory.all()) == 1000


@pytest.fixture
def held(folder: Path) -> Iterator[str]:
    """A holder process that sends 4 MB/s."""
    assert run(["data", "publish", str(folder), "--offline", "--piece-kib", "64"]) == Exit.OK
    command = [
        sys.executable,
        "-m",
        "clusterai.cli",
        "data",
        "hold",
        str(folder),
        "--listen",
        "127.0.0.1:0",
        "--rate",
        "4",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as holder:
        assert holder.stdout is not None
        yield holder.stdout.readline().strip()
        holder.send_signal(signal.SIGTERM)
        assert holder.wait(120) == 0


def test_a_fetch_that_is_killed_goes_on(
    folder: Path, tmp_path: Path, held: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in the middle: what came is kept, the rest is fetched, all of it is right."""
    to = tmp_path / "to"
    command = [sys.executable, "-m", "clusterai.cli", "data", "fetch", held, "--to", str(to)]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as first:
        journal = to / ".clusterai/have"
        while not (journal.exists() and journal.stat().st_size >= 4 * 20):
            assert first.poll() is None, "it ended before it could be killed"
        first.kill()
    kept = journal.stat().st_size // 4
    got = answered(capsys, "fetch", held, "--to", str(to))
    manifest = decode((to / ".clusterai/manifest").read_bytes())
    assert 0 < msgspec.convert(got["fetched_bytes"], int) <= manifest.size - (kept - 2) * 65536
    assert (to / "big.bin").read_bytes() == (folder / "big.bin").read_bytes()


def test_a_strangers_card_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    """No escape sequence and no markup of a stranger reaches the terminal."""
    from clusterai.cli.datasets import showing

    showing.card({"name": "a\x1b[31m[bold]b[/bold]", "clusterai": {"manifest": "no"}})
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "[bold]" in said


def test_holders_of_a_listing_are_judged(folder: Path, tmp_path: Path) -> None:
    """A listing that names this machine's own addresses makes nobody dial them."""
    from clusterai.cli.failure import Failure
    from clusterai.protocol.ids import ZERO_DIGEST

    told = ("http://127.0.0.1:1/", "file:///etc", "http://169.254.169.254/")
    with pytest.raises(Failure, match="no holder has"):
        fetching.bring(
            fetching.Wanted(ZERO_DIGEST, told=told),
            tmp_path / "to",
            lambda _whole, _here: lambda _more: None,
            Remembered(tmp_path / "x"),
        )


def vault_card(policy: dict[str, object]) -> dict[str, object]:
    columns = [
        {"name": "age", "kind": "int", "low": 0, "high": 120},
        {"name": "ward", "kind": "category", "categories": ["[red]east", "west\x1b"]},
    ]
    return {
        "name": "wards",
        "clusterai": {
            "kind": "vault",
            "seal_to": "0x" + "07" * 32,
            "schema": {"columns": columns},
            "policy": policy,
            "snapshot": "0x",
            "dataset": "0x",
        },
    }


def test_a_vaults_card_says_what_it_holds_allows_and_costs(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns with their bounds, operations, budgets and prices; of an owner's nonsense nothing breaks."""
    from clusterai.cli.datasets import showing

    prices = {"training": {"use_wei": 2 * 10**9, "milli_epsilon_wei": 0}}
    policy = {"operations": ["query", "copy"], "automatic": ["query"], "use_wei": 10**8, "prices": prices}
    showing.card(vault_card({**policy, "copy_wei": 5 * 10**9, "total_epsilon_micro": 20_000_000}))
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "0 to 120",
        "granted at once: query",
        "20 in all",
        "0.1 CLAI a use",
        "2 CLAI a use",
        "5 CLAI for a copy",
    ):
        assert words in said
    assert "\x1b" not in said
    nonsense: tuple[dict[str, object], ...] = (
        {"operations": 7, "prices": [1]},
        {"operations": [{}], "prices": {"x": 1}},
    )
    for bad in nonsense:
        showing.card(vault_card(bad))
    showing.card({"name": "x", "clusterai": {"kind": "vault", "schema": {"columns": []}}})
