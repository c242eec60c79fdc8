"""Statistics over several vaults at once: mean, variance, histogram, regression, of sums that no vault's own part can be read from.

An order buys a vault's share: its own sums with its own noise, for which ε is spent. The share itself leaves by calls, masked (`vault.core.secagg`),
and only in one sum with those of the vaults that the order names. The room refuses a sum of fewer than three, exact sums where the owner granted an ε, and a
second sum of a share without noise.

    spec.py    studies, orders, calls         core/question.py    SQL to a closed question      adapters/hosting.py   the vault's side
    price.py   thousandths of ε, and a use    core/spread.py      what noise does to it         adapters/asking.py    the requester's
    check.py   what shows without the data    adapters/noise.py   a vault's own noise
"""

from clusterai.work.joint.check import check_part, judge_answer, wrong
from clusterai.work.joint.price import recount
from clusterai.work.joint.spec import KIND_NAME, ShareOrder, Study, decode_order
from clusterai.work.kind import Kind
from clusterai.work.uses import cap_wei, spell

KIND = Kind(
    name=KIND_NAME,
    decode=decode_order,
    cap_wei=cap_wei,
    recount=recount,
    check_part=check_part,
    judge=judge_answer,
    wrong=wrong,
    spell=spell,
    gap_unit="shares",
    hosts="clusterai.work.joint.adapters.hosting",
    first_s=120.0,
)

__all__ = ["KIND", "ShareOrder", "Study", "decode_order"]
