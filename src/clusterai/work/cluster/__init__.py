"""Clusters by the hour: machines that are rented whole, and the evidence that they were.

A rented machine's time is ordered in intervals, one after another, and an interval's answer is its heartbeats: what the sentinel inside
the tenant's sandbox could do with the time that the tenant left. So it is paid, audited and settled as an answer of a model is. The
room refuses to call a machine its tenant's own: it says how much of its time was, as far as that can be shown.

    spec.py             what is rented, and an interval of it        inside/      what runs in the tenant's sandbox
    core/heartbeats.py  an interval's answer                         adapters/    walls, mesh, Ray, the sentinel's far end
    price.py            proven time                                  check.py     a chain done again
"""

from clusterai.work.cluster.check import check_part, judge_answer, spell
from clusterai.work.cluster.core.heartbeats import wrong
from clusterai.work.cluster.price import cap_wei, recount
from clusterai.work.cluster.spec import ClusterSpec, Interval, decode_interval, decode_spec
from clusterai.work.kind import Kind

KIND = Kind(
    name="cluster",
    decode=decode_interval,
    cap_wei=cap_wei,
    recount=recount,
    check_part=check_part,
    judge=judge_answer,
    wrong=wrong,
    spell=spell,
    gap_unit="spans",
)

__all__ = ["KIND", "ClusterSpec", "Interval", "decode_interval", "decode_spec"]
