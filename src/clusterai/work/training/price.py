"""What a round costs: the app is run once for each block of rows, and each of these runs has one price."""

from clusterai.protocol.canonical import Malformed
from clusterai.work.packed import Unpackable, bytes_of
from clusterai.work.training.spec import Done, Round, decode_done


def done_of(request: Round, tokens: tuple[int, ...]) -> Done:
    """
    Raises:
        ValueError: that isn't an answer to this request.
    """
    try:
        done = decode_done(bytes_of(tokens))
    except (Unpackable, Malformed) as error:
        raise ValueError(str(error)) from None
    if done.order != request.digest:
        raise ValueError("it answers another order")
    if list(done.metrics) != sorted(set(done.metrics)):
        raise ValueError("its metrics are out of order")
    return done


def cap_wei(request: Round, input_wei: int, output_wei: int) -> int:
    return request.blocks * output_wei


def recount(request: Round, tokens: tuple[int, ...]) -> tuple[int, int]:
    """(0, runs of the app) as an honest receipt states them; nothing for what is no answer."""
    try:
        done_of(request, tokens)
    except ValueError:
        return 0, 0
    return 0, request.blocks


def wrong(request: Round, tokens: tuple[int, ...], reason: str) -> str | None:
    if reason != "stop":
        return f"it ended by {reason!r}, and a round ends with its answer"
    try:
        done_of(request, tokens)
    except ValueError as error:
        return str(error)
    return None
