"""What a round costs: its ε in thousandths as input units, and one use as the output unit, as for a query. Being refused costs nothing."""

from clusterai.protocol.canonical import Malformed
from clusterai.work.packed import Unpackable, bytes_of
from clusterai.work.training.spec import Done, Round, Sorry, decode_done
from clusterai.work.uses import charged


def done_of(request: Round, tokens: tuple[int, ...]) -> Done | Sorry:
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
    if isinstance(done, Done):
        if list(done.metrics) != sorted(set(done.metrics)):
            raise ValueError("its metrics are out of order")
        if done.epsilon_micro > request.epsilon_micro:
            raise ValueError("it spent more than the order allows")
    return done


def recount(request: Round, tokens: tuple[int, ...]) -> tuple[int, int]:
    """(thousandths of ε, uses) as an honest receipt states them; nothing for what is no answer."""
    try:
        done = done_of(request, tokens)
    except ValueError:
        return charged(None)
    return charged(done.epsilon_micro if isinstance(done, Done) else None)
