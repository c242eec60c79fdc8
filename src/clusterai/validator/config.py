"""A validator's configuration: one frozen struct, from a TOML or JSON file, scalars overridden by the environment.

`CLUSTERAI_VALIDATOR_METRICS_PORT=9200` overrides `metrics_port`, and so on for every number and text. Secrets are never in
it: `key` names a file, whose password (where it is a keystore) is `CLUSTERAI_KEY_PASSWORD`. Relative paths are of the
file's own folder.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from clusterai.protocol.ids import Address, BadId, address

PREFIX = "CLUSTERAI_VALIDATOR_"

Count = Annotated[int, Meta(ge=1, le=100_000)]
Seconds = Annotated[int, Meta(ge=0, le=10**7)]


class BadConfig(ValueError):
    """The configuration can't be used: {why}."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class GatewayConfig(_Part, frozen=True):
    """A gateway to reach providers through: the owner it must prove to act for, and its link's wss:// address."""

    owner: str
    url: Annotated[str, Meta(pattern="^wss://", max_length=512)]


class Config(_Part, frozen=True):
    """One validator.

    Attributes:
        data: folder of journal, outbox, evidence, verdicts; of this validator alone.
        network: the network's manifest, network.json.
        key: file of the hot key that the owner delegated.
        owner: address that registered and holds the stake.
        gateways: whom to reach providers through; one link to each.
        models_folder: the model store; the weights of audited models must be in it. "" is the user's own.
        threads: of each engine.
        cache_mb: of keys and values, of each engine.
        patience_s: how long a provider may be slow or away before it is challenged on chain. On networks with days
            of window make it hours.
        survives: `process` loses nothing when the process is killed; `power` also when the machine loses power. A verdict
            forgotten at a power cut could be contradicted by the next, which costs the stake.
        metrics_port: Prometheus metrics, /healthz and /status on loopback; 0 is off.
        log_level: of the JSON log on stderr.
    """

    data: Path
    network: Path
    key: Path
    owner: str
    gateways: Annotated[tuple[GatewayConfig, ...], Meta(min_length=1, max_length=64)]
    models_folder: Path = Path()
    threads: Count = 1
    cache_mb: Count = 256
    patience_s: Seconds = 20
    survives: Literal["process", "power"] = "power"
    metrics_port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def owner_address(self) -> Address:
        return address(self.owner)

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
    folder = path.resolve().parent
    models = config.models_folder
    return msgspec.structs.replace(
        config,
        data=folder / config.data,
        network=folder / config.network,
        key=folder / config.key,
        models_folder=models if models == Path() else folder / models,
    )


def _overrides(environment: Mapping[str, str]) -> dict[str, str]:
    scalars = [name for name in Config.__struct_fields__ if name != "gateways"]
    return {
        name: environment[PREFIX + name.upper()] for name in scalars if PREFIX + name.upper() in environment
    }


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise NotImplementedError
