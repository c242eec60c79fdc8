"""What a query costs: its ε in thousandths as input units, and one use as the output unit. A refusal costs nothing."""

from clusterai.protocol.canonical import Malformed
from clusterai.work.packed import Unpackable, bytes_of
from clusterai.work.query.spec import Answer, QuerySpec, decode_said, milli


def recount(spec: QuerySpec, tokens: tuple[int, ...]) -> tuple[int, int]:
    """(thousandths of ε, uses) as an honest receipt states them."""
    try:
        said = decode_said(bytes_of(tokens))
    except (Unpackable, Malformed):
        return 0, 0
    return (milli(spec.epsilon_micro), 1) if isinstance(said, Answer) else (0, 0)


def cap_wei(spec: QuerySpec, input_wei: int, output_wei: int) -> int:
    """The most that this query can cost: the order's cap."""
    return milli(spec.epsilon_micro) * input_wei + output_wei
