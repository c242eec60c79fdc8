"""Kinds of work. Each is one folder with spec, price, perform and check, and one line here.

The rooms above (gateway, node, validator) know work only by a `Kind`; adding a kind edits nothing else.
"""

from clusterai.work import cluster, embedding, inference, joint, query, sealed, training
from clusterai.work.kind import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        inference.KIND,
        embedding.KIND,
        cluster.KIND,
        query.KIND,
        joint.KIND,
        sealed.KIND,
        training.KIND,
    )
}

__all__ = ["KINDS", "Kind"]
