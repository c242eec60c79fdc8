"""Questions to private data, paid by the use and by what they reveal.

A vault answers SQL with noise, or runs a requester's program over samples of the rows and averages with noise; whatever was asked, an answer
is ε-differentially private for the people in the data, and ε is spent from a budget. The room refuses whatever has no known price in
privacy: rows, unbounded sums, groups that the data itself would name.

    spec.py       a query, its answer           core/sql.py        SQL to a closed plan
    price.py      thousandths of ε, and a use   core/measuring.py  exact sums, and what one person moves
    check.py      what shows without the data   core/release.py    budget to noise
    adapters/     over a vault                  core/estimate.py   what a requester makes of it
"""

from clusterai.work.kind import Kind
from clusterai.work.query.check import check_part, judge_answer, wrong
from clusterai.work.query.price import recount
from clusterai.work.query.spec import KIND_NAME, MOST_SLOTS_S, QuerySpec, decode_query
from clusterai.work.uses import cap_wei, spell

KIND = Kind(
    name=KIND_NAME,
    decode=decode_query,
    cap_wei=cap_wei,
    recount=recount,
    check_part=check_part,
    judge=judge_answer,
    wrong=wrong,
    spell=spell,
    gap_unit="queries",
    hosts="clusterai.work.query.adapters.hosting",
    first_s=float(MOST_SLOTS_S),
)

__all__ = ["KIND", "QuerySpec", "decode_query"]
