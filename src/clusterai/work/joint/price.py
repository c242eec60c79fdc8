"""What a share costs: its ε in thousandths as input units, and one use as the output unit. Being refused costs nothing."""

from clusterai.work.joint.check import said_in
from clusterai.work.joint.spec import Pledge, ShareOrder
from clusterai.work.uses import charged


def recount(order: ShareOrder, tokens: tuple[int, ...]) -> tuple[int, int]:
    """(thousandths of ε, uses) as an honest receipt states them."""
    try:
        said = said_in(order, tokens)
    except ValueError:
        return charged(None)
    return charged(order.epsilon_micro if isinstance(said, Pledge) else None)
