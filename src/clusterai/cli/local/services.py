"""The processes of a local network: what each is started with, and when it counts as ready."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from clusterai.cli.local import probes
from clusterai.cli.local.folder import Cheat, DataFolder, write_atomically
from clusterai.cli.local.models import served
from clusterai.cli.local.people import People, Person
from clusterai.cli.local.ports import HOST, Ports
from clusterai.cli.local.supervisor import Service
from clusterai.node.config import JobsConfig
from clusterai.protocol.ids import checksummed, hex0x
from clusterai.runtime.adapters.config import default_models

STATE = "state"
"""Where a daemon keeps its journal, in its folder; a barred node's is moved away as a whole."""
ONE_THREAD = (("OMP_NUM_THREADS", "1"),)
"""Several engines share the cores: one thread each is fastest."""


def chain(folder: DataFolder, ports: Ports, people: People, window_s: int) -> Service:
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
            "--host",
            ports.listens,
            "--deployer",
            hex0x(people.treasury.address),
            "--window",
            str(window_s),
        ),
        log=folder.log_of("chain"),
        ready=probes.listens(ports.chain),
        url=ports.chain_url,
    )


def gateway(
    folder: DataFolder, ports: Ports, people: People, model: str, tls: tuple[str, str] | None = None
) -> Service:
    """
    Args:
        tls: PEM files for HTTPS: the certificate with its chain, and its key.
    """
    certificate, key = tls or ("", "")
    config = {
        "data": str(folder.of("gateway")),
        "network": str(folder.manifest),
        "key": str(people.gateway.hot_file),
        "owner": hex0x(people.gateway.owner.address),
        "models_folder": str(default_models()),
        "serve": served(model),
        "host": ports.listens,
        "port": ports.api,
        "link_host": ports.listens,
        "link_port": ports.link,
        "link_url": ports.link_url if ports.is_open else "",
        "tls_certificate": certificate,
        "tls_key": key,
    }
    return Service(
        name="gateway",
        kind="gateway",
        module="clusterai.gateway",
        arguments=("--config", str(_written(folder, "gateway", config))),
        log=folder.log_of("gateway"),
        ready=probes.answers(f"{ports.api_url}/healthz"),
        rank=1,
        url=ports.api_url,
    )


def node(
    folder: DataFolder,
    ports: Ports,
    people: People,
    one: Person,
    model: str,
    *,
    rent: bool = False,
    vaults: Sequence[str] = (),
) -> Service:
    config = write_node(folder, ports, people, one, model, folder.cheat_of(one.name), rent, vaults)

    def villain() -> tuple[str, ...] | None:
        """What is started instead while the demonstration makes it cheat."""
        cheat = folder.cheat_of(one.name)
        if cheat is None:
            return None
        how = ("--weights", cheat.weights) if cheat.weights else ("--lies",)
        return ("clusterai.cli.local.villain", "--config", str(config), *how)

    return Service(
        name=one.name,
        kind="node",
        module="clusterai.node",
        arguments=("--config", str(config)),
        log=folder.log_of(one.name),
        ready=probes.serves(ports.api_url, checksummed(one.owner.address), served(model)),
        rank=2,
        environment=ONE_THREAD,
        instead=villain,
    )


def write_node(
    folder: DataFolder,
    ports: Ports,
    people: People,
    one: Person,
    model: str,
    cheat: Cheat | None,
    rent: bool | None = None,
    vaults: Sequence[str] | None = None,
) -> Path:
    """The node's configuration. Who lies about jobs asks half the usual price, which brings it the work.

    Args:
        rent: whether it is offered whole; None leaves that as it is.
        vaults: folders that it holds; None leaves that as it is.
    """
    home = folder.of(one.name)
    if rent is None or vaults is None:
        held = msgspec.json.decode((home / "config.json").read_bytes())
        rent = held.get("rentals") is not None if rent is None else rent
        vaults = [it["folder"] for it in held.get("vaults", [])] if vaults is None else vaults
    lies = cheat is not None and cheat.lies
    jobs: dict[str, Any] = {"giga_fuel_wei": JobsConfig().giga_fuel_wei // 2} if lies else {}
    config: dict[str, Any] = {
        "data": str(home / STATE),
        "network": str(folder.manifest),
        "key": str(one.hot_file),
        "owner": hex0x(one.owner.address),
        "gateways": [{"owner": hex0x(people.gateway.owner.address), "url": f"wss://{HOST}:{ports.link}"}],
        "models": [{"name": name} for name in served(model)],
        "models_folder": str(default_models()),
        "jobs": jobs,
        "rentals": rented_out(len(people.nodes)) if rent else None,
        "vaults": [{"folder": it} for it in vaults],
        # Nobody but this machine has a stake here: a power cut may cost the last second.
        "survives": "process",
    }
    return _written(folder, one.name, config)


def rented_out(nodes: int) -> dict[str, Any]:
    """Each node lends a core of this machine, which they share, so nobody has it alone; as much memory and disk as `rent` asks for
    by itself, where this machine has that for each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    each = (2 if memory * 3 // 4 >= nodes * (2 << 30) else 1) << 30
    return {"cpu_milli": 1000, "memory_bytes": each, "disk_bytes": 2 << 30, "allowed": ["*"]}


def validator(folder: DataFolder, ports: Ports, people: People, at: int) -> Service:
    one, port = people.validators[at], ports.validators[at]
    config = {
        "data": str(folder.of(one.name) / STATE),
        "network": str(folder.manifest),
        "key": str(one.hot_file),
        "owner": hex0x(one.owner.address),
        "gateways": [{"owner": hex0x(people.gateway.owner.address), "url": f"wss://{HOST}:{ports.link}"}],
        "models_folder": str(default_models()),
        "metrics_port": port,
    }
    return Service(
        name=one.name,
        kind="validator",
        module="clusterai.validator",
        arguments=("--config", str(_written(folder, one.name, config))),
        log=folder.log_of(one.name),
        ready=probes.answers(f"http://{HOST}:{port}/healthz"),
        rank=2,
        environment=ONE_THREAD,
    )


def key_ring(folder: DataFolder) -> Path:
    """The gateway's table of API keys."""
    return folder.of("gateway") / "keys.db"


def _written(folder: DataFolder, name: str, config: dict[str, Any]) -> Path:
    """The configuration file of one process; written anew by each `up`, for it follows the command line."""
    home = folder.of(name)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = home / "config.json"
    write_atomically(path, msgspec.json.format(msgspec.json.encode(config)) + b"\n")
    return path
