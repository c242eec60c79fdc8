"""What a query costs: its ε in thousandths as input units, and one use as the output unit. A refusal costs nothing."""

from clusterai.protocol.canonical import Malformed
from clusterai.work.packed import Unpackable, bytes_of
from clusterai.work.query.spec import Answer, QuerySpec, decode_said
from clusterai.work.uses import charged


def recount(spec: QuerySpec, tokens: tuple[int, ...]) -> tuple[int, int]:
    """(thousandths of ε, uses) as an honest receipt states them."""
    try:
        said = decode_said(bytes_of(tokens))
    except (Unpackable, Malformed):
        return charged(None)
    return charged(spec.epsilon_micro if isinstance(said, Answer) else None)
