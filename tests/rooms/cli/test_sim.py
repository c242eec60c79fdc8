"""`clusterai sim`: a scenario in, a table or JSON and a picture out, and an exit code that scripts can use."""

from pathlib import Path

import msgspec
import pytest

from clusterai.cli.failure import Exit
from clusterai.cli.main import run

SCENARIO = """
name = "tiny"
[market]
leases = 3
history = {history}
[[groups]]
strategy = "full-skip"
operators = 2
"""


def scenario(folder: Path, history: int, more: str = "") -> str:
    file = folder / "tiny.toml"
    file.write_text(SCENARIO.format(history=history) + more)
    return str(file)


def test_cheats_that_lose_end_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has the profits, the picture is written, and the exit code says that honesty wins."""
    picture = tmp_path / "out.svg"
    code = run(["sim", scenario(tmp_path, 0), "--seeds", "2", "--json", "--plot", str(picture)])
    said = msgspec.json.decode(capsys.readouterr().out)
    assert code == Exit.OK
    assert said["rows"][0]["strategy"] == "full-skip"
    assert said["rows"][0]["extra"] < 0
    assert picture.read_text().startswith("<svg")


def test_a_cheat_that_wins_is_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody audits, the table says that the cheat wins, and scripts see it."""
    rules = "[rules]\nsaving_ppm = 0\n"
    file = tmp_path / "bent.toml"
    file.write_text(SCENARIO.format(history=10**9).replace("[[groups]]", rules + "[[groups]]"))
    assert run(["sim", str(file), "--seeds", "2", "--quiet"]) == Exit.UNTRUE
    assert "wins" in capsys.readouterr().out


def test_what_is_no_scenario_is_refused_with_the_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The person learns which field of which file is wrong."""
    assert run(["sim", scenario(tmp_path, 0, 'colour = "red"\n')]) == Exit.USAGE
    said = capsys.readouterr().err
    assert "colour" in said
    assert "$.groups[0]" in said
    assert run(["sim", str(tmp_path / "none.toml")]) == Exit.USAGE
