"""Bundles of options: one parameter of a command, several on its line."""

from pathlib import Path
from typing import Annotated

import typer
from typer.testing import CliRunner

from clusterai.cli import options

Word = Annotated[str, typer.Argument(metavar="WORD")]


class Mine(options.Chain, frozen=True, kw_only=True):
    """A bundle over another."""

    key: options.KeyFile = Path("usual")


def echo(word: Word, *, chain: Mine, yes: options.Yes = False, answer: options.Answer) -> None:
    assert isinstance(chain, Mine)
    answer.give({"word": word, "data": str(chain.data), "key": str(chain.key), "yes": yes}, word)


def run(*line: str) -> str:
    app = typer.Typer()
    app.command()(options.spread(echo))
    found = CliRunner().invoke(app, line, env={"CLUSTERAI_DATA": None}, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def test_a_bundle_stands_on_the_line_as_its_options_in_their_order():
    """Help lists them one by one where the bundle stood, those of the bundle it derives from first."""
    helped = run("--help")
    places = [helped.index(it) for it in ("--data", "--network", "--key", "--yes", "--json", "--quiet")]
    assert places == sorted(places)


def test_a_command_gets_its_bundles():
    """What was given is in the bundle, and what was not is its default."""
    assert run("hello") == "hello\n"
    told = run("hello", "--json", "--data", "there", "--yes")
    assert all(it in told for it in ('"data": "there"', '"key": "usual"', '"yes": true'))
