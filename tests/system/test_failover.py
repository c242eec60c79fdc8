"""`kill -9` of a provider while it streams: the client notices nothing."""

from typing import Any

import msgspec
import pytest

from tests.system.running import Network, until

pytestmark = pytest.mark.system

TOKENS = 240
PAUSE_MS = 15.0


@pytest.fixture
def slow(fresh: Network) -> Network:
    """A network whose toy engines take their time, so that a stream can be caught in the middle."""
    fresh.up()
    for name in ("node-1", "node-2"):
        path = fresh.data / name / "config.json"
        config = msgspec.json.decode(path.read_bytes())
        config["models"][0]["pause_ms"] = PAUSE_MS
        path.write_bytes(msgspec.json.encode(config))
        fresh.until_back(name, fresh.kill(name))
    fresh.until_serving(2)
    return fresh


def story(network: Network, **options: Any) -> Any:
    create: Any = network.openai().chat.completions.create
    return create(
        model="tiny",
        messages=[{"role": "user", "content": "Tell me a story."}],
        max_tokens=TOKENS,
        seed=11,
        **options,
    )


def owner_of(network: Network, name: str) -> str:
    return msgspec.json.decode((network.data / name / "config.json").read_bytes())["owner"]


def test_a_stream_goes_on_elsewhere_with_the_very_same_tokens(slow: Network):
    """The provider dies in the middle: the stream has the tokens that it would have sent, and is charged once."""
    whole = story(slow).choices[0].message.content
    before = slow.told("account")["charged_wei"]
    stream = story(slow, stream=True, stream_options={"include_usage": True})
    text: list[str] = []
    killed, restarts = "", 0
    extra: Any = {}
    for part in stream:
        if part.choices:
            text.append(part.choices[0].delta.content or "")
        told: Any = part.model_extra
        extra = told.get("clusterai") or extra
        if len(text) > 20 and not killed:
            running = {
                one["provider"].lower() for one in slow.http("nodes")["nodes"] if one.get("orders_here")
            }
            killed = next((name for name in ("node-1", "node-2") if owner_of(slow, name) in running), "")
            if killed:
                restarts = slow.kill(killed)
    assert killed, "no node was seen at work"
    assert "".join(text) == whole
    assert slow.told("account")["charged_wei"] == before + sum(it["price_wei"] for it in extra["receipts"])
    slow.until_back(killed, restarts)
    until("the dead provider to be let in again", lambda: slow.serving() == 2)
