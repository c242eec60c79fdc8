"""Federated training: Flower's apps, unmodified, run where the data lies; what comes back are sums.

The requester's ServerApp runs at home, over a Grid of ours; its ClientApp runs at each vault, in the sandbox, without network, beside
rows that can't be written. The vault's daemon, not the requester's program, clips each update, weighs it, rounds it, adds noise,
charges the budget and masks it. The room refuses to hand out one vault's update where the run or the vault says sums.

    spec.py    runs, orders, calls          core/vector.py     replies as vectors, sums as replies      inside/    what runs in Flower's environment
    price.py   thousandths of ε, and a use  core/privacy.py    noise, ε over all rounds                 adapters/  the vault's side, the requester's side
    check.py   what shows without the rows
"""

from clusterai.work.kind import Kind
from clusterai.work.training.check import check_part, judge_answer, wrong
from clusterai.work.training.price import recount
from clusterai.work.training.spec import KIND_NAME, Round, Run, decode_round
from clusterai.work.uses import cap_wei, spell

KIND = Kind(
    name=KIND_NAME,
    decode=decode_round,
    cap_wei=cap_wei,
    recount=recount,
    check_part=check_part,
    judge=judge_answer,
    wrong=wrong,
    spell=spell,
    gap_unit="rounds",
    hosts="clusterai.work.training.adapters.hosting",
    first_s=1800.0,
)

__all__ = ["KIND", "Round", "Run", "decode_round"]
