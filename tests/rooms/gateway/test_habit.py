"""How a model is sampled when the request doesn't say."""

from clusterai.gateway.core.chat import (
    ChatBody,
    CompletionBody,
    Habit,
    Message,
    wanted_chat,
    wanted_completion,
)

HABIT = Habit(temperature_ppm=200_000, top_p_ppm=900_000)
HELLO = [Message("user", "hello")]


def test_a_request_that_names_no_temperature_gets_the_models_own() -> None:
    """What the model's authors recommend on its card holds for both endpoints."""
    for wanted in (
        wanted_chat(ChatBody(model="m", messages=HELLO), HABIT),
        wanted_completion(CompletionBody(model="m", prompt="hello"), HABIT),
    ):
        assert wanted.sampling.temperature_ppm == 200_000
        assert wanted.sampling.top_p_ppm == 900_000


def test_what_the_request_names_wins() -> None:
    """Zero is a wish too."""
    wanted = wanted_chat(ChatBody(model="m", messages=HELLO, temperature=0, top_p=0.5), HABIT)
    assert wanted.sampling.temperature_ppm == 0
    assert wanted.sampling.top_p_ppm == 500_000
