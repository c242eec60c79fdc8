"""A mean as the replies that a strategy gets: one from each client that is in the sum, all the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from clusterai.protocol.ids import Digest
from clusterai.work.training.core.vector import JOIN, OLDER_METRICS, Mean
from clusterai.work.training.inside.records import Records, encode


def reply_of(mean: Mean, message: Records, weight_key: str, clients: int) -> Records:
    """
    Args:
        message: what was sent; its records' names tell which of Flower's APIs the app uses.
        clients: in the sum. Each reply has this part of its weight.
    """
    weight = mean.weight / max(1, clients)
    reply: Records = {}
    metrics: dict[str, dict[str, Any]] = {}
    for name, value in mean.metrics.items():
        record, _, key = name.partition(JOIN)
        metrics.setdefault(record, {})[key] = value
    older = next((name[:-3] + "res" for name in ("fitins", "evaluateins") if _begins(message, name)), "")
    arrays = next(name for name, (kind, _) in message.items() if kind == "arrays") if mean.arrays else ""
    if mean.arrays:
        reply[f"{older}.parameters" if older else arrays] = mean.arrays
    if older:
        metrics.setdefault(f"{older}.metrics", {})
        metrics[f"{older}.num_examples"] = {"num_examples": max(1, round(weight))}
        if older == "evaluateres":
            metrics.setdefault("evaluateres.loss", {"loss": 0.0})
        reply[f"{older}.status"] = ("config", {"code": 0, "message": "the mean of a sum"})
    else:
        first = next(iter(sorted(metrics)), "metrics")
        metrics.setdefault(first, {})[weight_key] = weight
    for record, items in sorted(metrics.items()):
        reply[record] = ("config" if record in OLDER_METRICS else "metrics", dict(items))
    return reply


def replies(
    message: Records,
    weight_key: str,
    groups: Sequence[tuple[Sequence[Digest], Mean | None]],
    nodes: Mapping[Digest, int],
    asked: Sequence[int],
    *,
    alone: bool,
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """What each node that was asked is told to have answered, and the bodies of that.

    Args:
        groups: members, and the mean that is theirs; None where their sum isn't used.
        alone: each group's weight is its own members', not all groups' together.
    """
    told: list[dict[str, Any]] = []
    bodies: list[bytes] = []
    everyone = sum(len(members) for members, _ in groups)
    for members, mean in groups:
        if mean is None:
            told += [{"node": nodes[who], "body": -1, "why": "its group's sum isn't used"} for who in members]
            continue
        body = encode(reply_of(mean, message, weight_key, len(members) if alone else everyone))
        bodies += [body] if body not in bodies else []
        told += [{"node": nodes[who], "body": bodies.index(body)} for who in members]
    summed = {who for members, _ in groups for who in members}
    missing = [node for who, node in nodes.items() if node in asked and who not in summed]
    return told + [{"node": node, "body": -1, "why": "it dropped out"} for node in missing], bodies


def _begins(message: Records, name: str) -> bool:
    return any(record.startswith(f"{name}.") for record in message)
