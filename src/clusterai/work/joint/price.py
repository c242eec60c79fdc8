"""What a share costs: its ε in thousandths as input units, and one use as the output unit. Being refused costs nothing."""

from clusterai.work.joint.check import said_in
from clusterai.work.joint.spec import Pledge, ShareOrder, milli


def cap_wei(order: ShareOrder, input_wei: int, output_wei: int) -> int:
    return milli(order.epsilon_micro) * input_wei + output_wei


def recount(order: ShareOrder, tokens: tuple[int, ...]) -> tuple[int, int]:
    """(thousandths of ε, uses) as an honest receipt states them."""
    try:
        said = said_in(order, tokens)
    except ValueError:
        return 0, 0
    return (milli(order.epsilon_micro), 1) if isinstance(said, Pledge) else (0, 0)
