"""Who is refused while still sending hears the refusal, and can't make the gateway read for ever."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterai.gateway.adapters import lingering
from clusterai.gateway.adapters.asgi import Header, Message
from clusterai.gateway.adapters.lingering import MOST_DROPPED
from tests.rooms.gateway.bed import Bed

CLOSING: list[Header] = [(b"connection", b"close"), (b"content-length", b"9")]
PIECE: Message = {"type": "http.request", "body": bytes(1 << 20), "more_body": True}
LAST: Message = {"type": "http.request", "body": b"end", "more_body": False}
REFUSAL: Message = {"type": "http.response.body", "body": b"no", "more_body": False}


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder: Path = tmp_path_factory.mktemp("lingering")
    with Bed(folder, most_body=100_000) as it:
        yield it


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/clusterai/calls/0x" + "00" * 32, "/v1/clusterai/jobs", "/nowhere"]
)
def test_a_refusal_is_read_after_a_long_body(bed: Bed, path: str):
    """Four refusals that are made before the body is read, to a client that writes all of it first and keeps no connection."""
    status, _, raw = bed.fetch("POST", path, bytes(16 << 20), "sk-clusterai-wrong")
    assert status in (401, 404, 413)
    assert raw


def refused(headers: list[Header], coming: list[Message], *, reads: int = 0) -> tuple[list[Message], int]:
    """(what was sent, how many messages stayed unread) when an application reads so many and then refuses."""
    sent: list[Message] = []

    async def receive() -> Message:
        if not coming:
            await asyncio.Event().wait()
        return coming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    async def work() -> None:
        scope = {"type": "http", "http_version": "1.1", "headers": headers}
        taking, giving = lingering.lingering(scope, receive, send)
        for _ in range(reads):
            await taking()
        await giving(REFUSAL)

    asyncio.run(work())
    return sent, len(coming)


def test_the_refusal_goes_out_before_the_rest_is_read():
    """The answer is written at once; its end comes when the body's has."""
    sent, unread = refused(CLOSING, [PIECE, PIECE, LAST])
    assert [it["more_body"] for it in sent] == [True, False]
    assert sent[0]["body"] == b"no"
    assert unread == 0


def test_a_body_that_was_read_is_not_waited_for():
    """An application that took everything answers in one message."""
    sent, unread = refused(CLOSING, [PIECE, LAST, PIECE], reads=2)
    assert sent == [REFUSAL]
    assert unread == 1


@pytest.mark.parametrize("left", [{"type": "http.disconnect"}, LAST])
def test_who_leaves_is_not_waited_for(left: Message):
    """The end of the connection ends the reading as the body's end does."""
    sent, unread = refused(CLOSING, [PIECE, left, PIECE])
    assert len(sent) == 2
    assert unread == 1


def test_only_so_much_is_dropped():
    """An endless body is cut off after as many bytes as the largest that is taken."""
    pieces = [PIECE] * (2 * MOST_DROPPED >> 20)
    sent, unread = refused(CLOSING, pieces)
    assert not sent[-1]["more_body"]
    assert unread == (MOST_DROPPED >> 20) - 1


def test_a_body_that_stops_coming_is_given_up(monkeypatch: pytest.MonkeyPatch):
    """A client that falls silent holds its connection for a pause's length only."""
    monkeypatch.setattr(lingering, "PAUSE_S", 0.01)
    sent, _ = refused(CLOSING, [PIECE])
    assert not sent[-1]["more_body"]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"connection", b"keep-alive"), (b"content-length", b"9")],
        [(b"connection", b"close")],
        [*CLOSING, (b"expect", b"100-continue")],
    ],
)
def test_others_are_answered_as_ever(headers: list[Header]):
    """Who keeps the connection, sends nothing, or waits to be asked for the body isn't read from."""
    sent, unread = refused(headers, [PIECE, LAST])
    assert sent == [REFUSAL]
    assert unread == 2
