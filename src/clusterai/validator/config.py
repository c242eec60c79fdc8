"""A validator's configuration; where its values come from is `runtime/adapters/config.py`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from clusterai.audit.adapters.drand import RELAYS
from clusterai.protocol.offers import Label
from clusterai.runtime.adapters.config import BadConfig, Count, Dialer, load


class Config(Dialer, frozen=True, kw_only=True):
    """One validator.

    Attributes:
        models_folder: the model store; the weights of audited models must be in it. null is the user's own.
        threads: of each engine.
        cache_mb: of keys and values, of each engine.
        every_block: read all of the chain's blocks for verdicts that contradict each other, which may stand in transactions
            that failed; false: only blocks with counted votes, for chains whose blocks are large and reads are paid for.
        patience_s: how long a provider may be slow or away before it is challenged on chain; where the window ends before, as late as that allows.
        measures: examine the machines for which this validator is drawn; it costs some seconds of one core for each.
        region: where this validator stands, in the letters that offers use; machines that answer soon enough count as being there.
        drand_relays: where drand's pulses are fetched, on networks that draw by them. None is believed; the first that answers
            truly serves.
    """

    threads: Count = 1
    cache_mb: Count = 256
    every_block: bool = True
    patience_s: Annotated[int, Meta(ge=0, le=10**7)] = 3_600
    measures: bool = True
    region: Label = ""
    drand_relays: Annotated[
        tuple[Annotated[str, Meta(pattern="^https?://", max_length=512)], ...],
        Meta(min_length=1, max_length=16),
    ] = RELAYS


def load_config(path: Path, environment: Mapping[str, str]) -> Config:
    return load(Config, "validator", path, environment)


__all__ = ["BadConfig", "Config", "load_config"]
