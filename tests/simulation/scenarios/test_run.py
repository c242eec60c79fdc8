"""The command line of the campaigns."""

from typing import Any

import pytest

from tests.simulation.run import main
from tests.simulation.world.providers import Provider


def test_a_campaign_that_finds_nothing_says_how_much_it_looked(capsys: pytest.CaptureFixture[str]) -> None:
    """Steps and seeds a minute, and exit status 0."""
    assert main(["happy", "--seeds", "1", "--start", "3"]) == 0
    assert "happy: seeds 3 to 3, 0 broke" in capsys.readouterr().out


def test_a_failure_is_shown_with_its_command_and_shrunk(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug that shows under any faults takes none of them."""
    honest = Provider.answer

    def answer(self: Provider, generation: Any) -> tuple[tuple[int, ...], str]:
        tokens, reason = honest(self, generation)
        return (tokens[0] ^ 1, *tokens[1:]), reason

    monkeypatch.setattr(Provider, "answer", answer)
    assert main(["only-loss", "--seeds", "1", "--start", "4", "--shrink"]) == 1
    told = capsys.readouterr().err
    assert "python -m tests.simulation.run only-loss --start 4 --seeds 1" in told
    assert "the client reads the model's very tokens" in told
    assert (
        "It takes no fault at all:\n    python -m tests.simulation.run only-loss --start 4 --seeds 1" in told
    )
