"""A daemon's settings: from a flag, else `CLUSTERAI_<DAEMON>_<NAME>`, else its file, else the default.

The file is what `--config` names, TOML or JSON, or else the table of the daemon's name in `./clusterai.toml`. Flags and
variables exist for every setting that is one number, flag, text or path; lists and tables stand in the file. Secrets are never
settings: `key` names a file, whose password (where it is a keystore) is `CLUSTERAI_KEY_PASSWORD`. Relative paths are of the
file's own folder, those of flags and variables of the current one.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from msgspec import Meta, inspect

from clusterai.protocol.ids import Address, BadId, address

PROJECT_FILE = "clusterai.toml"
PASSWORD = "CLUSTERAI_KEY_PASSWORD"  # noqa: S105  the variable's name

Count = Annotated[int, Meta(ge=1, le=100_000)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Wei = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Meta(ge=0, le=10**7)]
Level = Literal["debug", "info", "warning", "error"]


class BadConfig(ValueError):
    """The configuration can't be used: {why}."""


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings, or a table among them."""


class GatewayConfig(Part, frozen=True, kw_only=True):
    """A gateway to dial: the owner it must prove to act for, and its link's wss:// address."""

    owner: str
    url: Annotated[str, Meta(pattern="^wss://", max_length=512)]


class Daemon(Part, frozen=True, kw_only=True):
    """What every daemon is told.

    Attributes:
        data: its folder, of this daemon alone; made if it isn't there.
        network: the network's manifest, network.json.
        key: file of the hot key that the owner delegated.
        owner: address that registered and holds the stake, whom the hot key acts for.
        models_folder: the model store, shared by all processes of a machine; null is the user's own.
        log_level: of the JSON log on stderr.
    """

    data: Path
    network: Path
    key: Path
    owner: str
    models_folder: Path | None = None
    log_level: Level = "info"

    def owner_address(self) -> Address:
        return address(self.owner)

    def store(self) -> Path:
        """The model store's folder."""
        return self.models_folder or default_models()

    def check(self) -> None:
        """
        Raises:
            ValueError: something can't be, beyond what types say.
        """
        self.owner_address()


class Dialer(Daemon, frozen=True, kw_only=True):
    """A daemon that dials gateways.

    Attributes:
        gateways: whom to dial; one link to each.
        survives: `process` loses nothing when the process is killed; `power` also when the machine loses power, for
            about 2 ms a record. Where stake is real, what was signed and forgotten can be used against you.
        metrics_port: Prometheus metrics on loopback; 0 is off.
    """

    gateways: Annotated[tuple[GatewayConfig, ...], Meta(min_length=1, max_length=64)]
    survives: Literal["process", "power"] = "power"
    metrics_port: Port = 0

    def gateway_urls(self) -> dict[Address, str]:
        return {address(gateway.owner): gateway.url for gateway in self.gateways}

    @property
    def synchronous(self) -> Literal["NORMAL", "FULL"]:
        """The same in SQLite's words."""
        return "FULL" if self.survives == "power" else "NORMAL"

    def check(self) -> None:
        super().check()
        self.gateway_urls()


D = TypeVar("D", bound=Daemon)


def default_models() -> Path:
    """Models are shared by all networks of a user: a conversion is made once."""
    if named := os.environ.get("CLUSTERAI_MODELS"):
        return Path(named).expanduser()
    from platformdirs import user_data_path

    return user_data_path("clusterai") / "models"


def prefix(name: str) -> str:
    """Of the variables of a daemon."""
    return f"CLUSTERAI_{name.upper()}_"


def scalars(kind: type[Daemon]) -> dict[str, bool]:
    """Settings that are one value, and whether that is a path."""
    found = {it.name: inspect.type_info(it.type) for it in msgspec.structs.fields(kind)}
    return {name: _is_path(told) for name, told in found.items() if _is_scalar(told)}


def load(
    kind: type[D],
    name: str,
    path: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[str, str] | None = None,
) -> D:
    """Read, override and check a daemon's settings.

    Args:
        name: gateway, node or validator.
        path: its file; None is the daemon's table in ./clusterai.toml, if there is one.

    Raises:
        BadConfig: unreadable, a field unknown or out of range, an address malformed.
    """
    said = str(path or PROJECT_FILE)
    try:
        raw = _read(path, name)
        for field, is_path in scalars(kind).items():
            given = (flags or {}).get(field, environment.get(prefix(name) + field.upper()))
            if given is not None:
                raw[field] = str(Path(given).expanduser().absolute()) if is_path else given
        config = msgspec.convert(raw, kind, dec_hook=_path, strict=False)
        config.check()
    except OSError as error:
        raise BadConfig(f"{said}: {error.strerror}") from None
    except (ValueError, BadId) as error:
        raise BadConfig(f"{said}: {error}") from None
    folder = Path(said).resolve().parent
    found = {field: getattr(config, field) for field, is_path in scalars(kind).items() if is_path}
    paths = {field: folder / value for field, value in found.items() if value is not None}
    return msgspec.structs.replace(config, **paths)


def _read(path: Path | None, name: str) -> dict[str, Any]:
    """
    Raises:
        OSError, ValueError: it can't be read.
    """
    if path is None:
        project = Path(PROJECT_FILE)
        raw: Any = tomllib.loads(project.read_text()).get(name, {}) if project.is_file() else {}
    else:
        text = path.read_text()
        raw = tomllib.loads(text) if path.suffix == ".toml" else msgspec.json.decode(text)
    if not isinstance(raw, dict):
        raise ValueError("it must hold a table of settings")
    return cast("dict[str, Any]", raw)


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise NotImplementedError


def _is_path(told: inspect.Type) -> bool:
    if isinstance(told, inspect.UnionType):
        return any(map(_is_path, told.types))
    return isinstance(told, inspect.CustomType) and told.cls is Path


def _is_scalar(told: inspect.Type) -> bool:
    if isinstance(told, inspect.UnionType):
        return all(map(_is_scalar, told.types))
    plain = (
        inspect.StrType,
        inspect.IntType,
        inspect.FloatType,
        inspect.BoolType,
        inspect.LiteralType,
        inspect.NoneType,
    )
    return isinstance(told, plain) or _is_path(told)
