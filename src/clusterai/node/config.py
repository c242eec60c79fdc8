"""A node's configuration; where its values come from is `runtime/adapters/config.py`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from clusterai.runtime.adapters.config import BadConfig, Count, Dialer, Part, Seconds, Wei, load


class ModelConfig(Part, frozen=True, kw_only=True):
    """A model to serve.

    Attributes:
        name: name or address in the model store, a built-in's name, or `tiny`, the toy without weights.
        input_wei, output_wei: price per token; None takes the card's suggestion.
        slots: answers in work at once.
        queue: answers waiting in the engine beyond those.
        threads: of the engine; one per engine is fastest where cores are shared.
        cache_mb: of keys and values, all answers together.
        weights: serve these weights (a name in the store) under the model's address. That is fraud, and the
            network's demonstration shows how it ends.
        pause_ms: `tiny` only: time per token, so that a stream can be watched.
    """

    name: str
    input_wei: Wei | None = None
    output_wei: Wei | None = None
    slots: Count = 32
    queue: Count = 128
    threads: Count = 1
    cache_mb: Count = 512
    weights: str | None = None
    pause_ms: Annotated[float, Meta(ge=0, le=10_000)] = 0.0


class Config(Dialer, frozen=True, kw_only=True):
    """One node.

    Attributes:
        models: what to serve.
        credit_wei: how much of a gateway's debt is borne before its orders are refused. At the default price some
            25,000 answers; lower it for gateways you don't know.
        queue: orders accepted beyond the slots of all models.
        least_claim_wei: a channel's vouchers are claimed when at least this is due.
        grace_s: how long running answers may go on after SIGTERM.
    """

    models: Annotated[tuple[ModelConfig, ...], Meta(min_length=1, max_length=64)]
    credit_wei: Wei = 10_000_000_000
    queue: Annotated[int, Meta(ge=0, le=100_000)] = 64
    least_claim_wei: Wei = 1
    grace_s: Seconds = 5.0

    def check(self) -> None:
        super().check()
        if len({model.name for model in self.models}) != len(self.models):
            raise ValueError("each model once")


def load_config(path: Path, environment: Mapping[str, str]) -> Config:
    return load(Config, "node", path, environment)


__all__ = ["BadConfig", "Config", "ModelConfig", "load_config"]
