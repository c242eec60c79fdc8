"""The processes of a local network: what each is started with, and when it counts as ready."""

from pathlib import Path
from typing import Any

import msgspec

from clusterai.cli.local import probes
from clusterai.cli.local.folder import DataFolder, write_atomically
from clusterai.cli.local.people import People
from clusterai.cli.local.ports import HOST, Ports
from clusterai.cli.local.supervisor import Service
from clusterai.cli.settings import default_models
from clusterai.protocol.ids import hex0x


def api_url(ports: Ports) -> str:
    return f"http://{HOST}:{ports.api}"


def chain_url(ports: Ports) -> str:
    return f"http://{HOST}:{ports.chain}"


def chain(folder: DataFolder, ports: Ports, people: People) -> Service:
    """The deployer holds the whole supply: it is the treasury."""
    return Service(
        name="chain",
        kind="chain",
        module="clusterai.ledger.adapters.embedded",
        arguments=(
            "--data",
            str(folder.of("chain")),
            "--port",
            str(ports.chain),
            "--deployer",
            hex0x(people.treasury.address),
        ),
        log=folder.log_of("chain"),
        ready=probes.listens(ports.chain),
        url=chain_url(ports),
    )


def gateway(folder: DataFolder, ports: Ports, people: People, model: str) -> Service:
    home = folder.of("gateway")
    config = {
        "data": str(home),
        "network": str(folder.manifest),
        "key": str(people.gateway.hot_file),
        "owner": hex0x(people.gateway.owner.address),
        "models": str(default_models()),
        "serve": served(model),
        "port": ports.api,
        "link_port": ports.link,
    }
    return Service(
        name="gateway",
        kind="gateway",
        module="clusterai.gateway",
        arguments=("--config", str(_written(folder, "gateway", config))),
        log=folder.log_of("gateway"),
        ready=probes.answers(f"{api_url(ports)}/healthz"),
        rank=1,
        url=api_url(ports),
    )


def key_ring(folder: DataFolder) -> Path:
    """The gateway's table of API keys."""
    return folder.of("gateway") / "keys.db"


def served(model: str) -> list[str]:
    return [model]


def _written(folder: DataFolder, name: str, config: dict[str, Any]) -> Path:
    """The configuration file of one process; written anew by each `up`, for it follows the command line."""
    home = folder.of(name)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = home / "config.json"
    write_atomically(path, msgspec.json.format(msgspec.json.encode(config)) + b"\n")
    return path
