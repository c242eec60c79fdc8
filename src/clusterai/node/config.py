"""A node's configuration: one frozen struct, from a TOML or JSON file, with scalars overridden by the environment.

`CLUSTERAI_NODE_METRICS_PORT=9100` overrides `metrics_port`, and so on for every top-level number, flag or text. Secrets
are never in it: `key` names a file, whose password (where it is a keystore) is `CLUSTERAI_KEY_PASSWORD`. Relative paths are
of the file's own folder.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from platformdirs import user_data_path

from clusterai.protocol.ids import Address, BadId, address

PREFIX = "CLUSTERAI_NODE_"
PASSWORD = "CLUSTERAI_KEY_PASSWORD"  # noqa: S105  the variable's name
TINY = "tiny"
"""The toy model without weights, for tests and demonstrations."""

Count = Annotated[int, Meta(ge=1, le=100_000)]
Wei = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class BadConfig(ValueError):
    """The configuration can't be used: {why}."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class GatewayConfig(_Part, frozen=True):
    """A gateway to take orders from: the owner it must prove to act for, and its link's wss:// address."""

    owner: str
    url: Annotated[str, Meta(pattern="^wss://", max_length=512)]


class ModelConfig(_Part, frozen=True):
    """A model to serve.

    Attributes:
        name: name or address in the model store, a built-in's name, or `tiny`.
        input_wei, output_wei: price per token; None takes the card's suggestion.
        slots: answers in work at once.
        queue: answers waiting in the engine beyond those.
        threads: of the engine; one per engine is fastest where cores are shared.
        cache_mb: of keys and values, all answers together.
        weights: serve these weights (a name in the store) under the model's address. That is fraud, and the
            network's demonstration shows how it ends.
        altered: the same for `tiny`: how far its logits are off.
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
    altered: Annotated[float, Meta(ge=0, le=100)] = 0.0
    pause_ms: Annotated[float, Meta(ge=0, le=10_000)] = 0.0


class Config(_Part, frozen=True):
    """One node.

    Attributes:
        data: folder of journal, transcripts, outbox and status; of this node alone.
        network: the network's manifest, network.json.
        key: file of the hot key that the owner delegated.
        owner: address that registered, holds the stake and is paid.
        gateways: whom to take orders from; one link to each.
        models: what to serve.
        models_folder: the model store; shared by all processes of a machine.
        credit_wei: how much of a gateway's debt is borne before its orders are refused. At the default price some
            25,000 answers; lower it for gateways you don't know.
        queue: orders accepted beyond the slots of all models.
        least_claim_wei: a channel's vouchers are claimed when at least this is due.
        survives: `process` loses nothing when the process is killed; `power` also when the machine loses power, for
            about 2 ms an answer. Where stake is real, a receipt forgotten at a power cut can be used against you.
        grace_s: how long running answers may go on after SIGTERM.
        metrics_port: Prometheus metrics on loopback; 0 is off.
        log_level: of the JSON log on stderr.
    """

    data: Path
    network: Path
    key: Path
    owner: str
    gateways: Annotated[tuple[GatewayConfig, ...], Meta(min_length=1, max_length=64)]
    models: Annotated[tuple[ModelConfig, ...], Meta(min_length=1, max_length=64)]
    models_folder: Path | None = None
    credit_wei: Wei = 10_000_000_000
    queue: Annotated[int, Meta(ge=0, le=100_000)] = 64
    least_claim_wei: Wei = 1
    survives: Literal["process", "power"] = "power"
    grace_s: Seconds = 5.0
    metrics_port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def owner_address(self) -> Address:
        return address(self.owner)

    def store(self) -> Path:
        """The model store's folder: all networks of a user share one, since a conversion is made once."""
        if self.models_folder is not None:
            return self.models_folder
        if named := os.environ.get("CLUSTERAI_MODELS"):
            return Path(named).expanduser()
        return user_data_path("clusterai") / "models"

    def gateway_urls(self) -> dict[Address, str]:
        return {address(gateway.owner): gateway.url for gateway in self.gateways}


def load_config(path: Path, environment: Mapping[str, str]) -> Config:
    """Read, override and check a configuration.

    Raises:
        BadConfig: unreadable, a field unknown or out of range, an address malformed.
    """
    try:
        text = path.read_text()
        raw: Any = tomllib.loads(text) if path.suffix == ".toml" else msgspec.json.decode(text)
        if not isinstance(raw, dict):
            raise BadConfig(f"{path} must hold a table of settings")
        config = msgspec.convert({**raw, **_overrides(environment)}, Config, dec_hook=_path, strict=False)
        config.owner_address()
        config.gateway_urls()
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}") from None
    except (msgspec.MsgspecError, tomllib.TOMLDecodeError, UnicodeDecodeError, BadId) as error:
        raise BadConfig(f"{path}: {error}") from None
    if len({model.name for model in config.models}) != len(config.models):
        raise BadConfig(f"{path}: each model once")
    folder = path.resolve().parent
    paths = {
        name: folder / found
        for name in ("data", "network", "key", "models_folder")
        if (found := getattr(config, name)) is not None
    }
    return msgspec.structs.replace(config, **paths)


def _overrides(environment: Mapping[str, str]) -> dict[str, str]:
    scalars = set(Config.__struct_fields__) - {"gateways", "models"}
    return {
        name: environment[PREFIX + name.upper()]
        for name in Config.__struct_fields__
        if name in scalars and PREFIX + name.upper() in environment
    }


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise NotImplementedError
