"""The sequential test that decides over many receipts whether a provider's work is what it says.

Each checked receipt brings a weight: the log of how much likelier its tokens are under fraud than under honest work
(log-likelihood ratio, thousandths of a nat). Weights add up per provider and model.

    weight
     +13.8 ─────────────────────────────── convinced: an honest provider gets here with probability <= 1e-6
         0  everyone begins here
     -13.8 ─────────────────────────────── floor: a long honest past is worth no more than this

By Ville's inequality the chance of ever rising by x nats under honesty is at most e^-x. From the floor, where an
honest provider spends its life, that is e^-27.6 = 1e-12 a climb. Without a floor a sleeper could save up honesty.
Source: Wald 1945; Ville 1939.
"""

import math

ALPHA = 1e-6
"""Probability that an honest provider is ever convicted in its first climb."""

BOUND_MILLI = math.ceil(-math.log(ALPHA) * 1000)
FLOOR_MILLI = -BOUND_MILLI


def add(state_milli: int, weight_milli: int) -> int:
    """The state after one more receipt."""
    return max(FLOOR_MILLI, state_milli + weight_milli)


def convinced(state_milli: int) -> bool:
    return state_milli >= BOUND_MILLI
