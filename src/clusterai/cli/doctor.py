"""The rows of `clusterai node doctor` for who has no configuration at hand: this machine, and the local network if one runs.

What a node of the local network is checked for is the node's own doctor's; here is what only `up` knows. Nothing is changed.
"""

import asyncio
import importlib.util
import os
from pathlib import Path

from clusterai.cli.auditing import auditing
from clusterai.cli.joining import NodeFolder
from clusterai.cli.local.folder import DataFolder
from clusterai.cli.settings import default_node
from clusterai.node import doctor, hardware
from clusterai.node.config import BadConfig, load_config
from clusterai.node.doctor import Row
from clusterai.runtime.adapters.config import default_models


def examine(
    folder: DataFolder,
    model: str,
    config: Path | None = None,
    gateway: str | None = None,
    validator: Path | None = None,
) -> list[Row]:
    """
    Args:
        config: a node's own configuration; without one, the local network's nodes are checked if it runs, else the node that joined.
        gateway: address of the API to whose machine the way is measured.
        validator: a validator's own configuration, to be checked in a node's place.
    """
    joined = NodeFolder(default_node())
    if gateway is None and not folder.is_held() and joined.gateway.exists():
        gateway = joined.gateway.read_text().strip()
    if validator is not None:
        return auditing(validator, gateway)
    if config is None and not folder.is_held() and joined.config.exists():
        config = joined.config
    way = [] if gateway is None else hardware.way(gateway)
    if config is not None:
        return [*_node(config, ""), *way]
    if not folder.is_held():
        rows = [
            *doctor.machine(folder.root),
            *doctor.lending(False),
            *_engine(runs_network=False),
            _model(model),
            *way,
        ]
        nothing = Row(
            "network",
            "yellow",
            f"none runs in {folder.root}",
            "clusterai up, clusterai node join URL, or --config FILE of a node",
        )
        return [*rows, nothing]
    gateway = folder.running().gateway
    rows = [*_engine(), _processes(folder), *hardware.way(gateway)]
    for service in folder.running().services:
        path = folder.of(service.name) / "config.json"
        if service.name.startswith("node-"):
            rows += _node(path, f"{service.name} ")
        if service.name.startswith("validator"):
            rows += auditing(path, gateway, f"{service.name} ")
    return rows


def _node(config: Path, prefix: str) -> list[Row]:
    try:
        found = asyncio.run(doctor.examine(load_config(config, os.environ)))
    except BadConfig as error:
        return [
            Row(f"{prefix}configuration", "red", str(error), "correct the file, or name another by --config")
        ]
    return [Row(prefix + row.name, row.state, row.found, row.cure) for row in found]


def _engine(runs_network: bool = True) -> list[Row]:
    parts = {"openvino": "node", "openvino_genai": "node", "pyrevm": "chain", "uvicorn": "gateway"}
    missing = {part: extra for part, extra in parts.items() if importlib.util.find_spec(part) is None}
    if not missing:
        return [Row("packages", "green", "engine, chain and gateway are installed")]
    told = f"missing: {', '.join(missing)}"
    if not runs_network and "node" not in missing.values():
        cure = "pip install 'clusterai[local]' for clusterai up; a node needs none of it"
        return [Row("packages", "yellow", told, cure)]
    return [Row("packages", "red", told, "pip install 'clusterai[local]'")]


def _model(name: str) -> Row:
    from clusterai.models import Altered, ModelStore, NoSuchModel
    from clusterai.work.loading import find

    store = ModelStore(default_models())
    try:
        model = find(store, name)
        if not model.manifest.files:
            return Row("model", "green", f"{name}: a toy without weights")
        store.verify(model)
    except (NoSuchModel, Altered) as error:
        return Row("model", "red", str(error), "clusterai models lists those that are here")
    if model.card.calibration is None and model.card.kind == "chat":
        return Row(
            "model",
            "yellow",
            f"{name}: weights verified",
            "no calibration: audits need more tokens to convict",
        )
    return Row("model", "green", f"{name}: weights verified, calibrated")


def _processes(folder: DataFolder) -> Row:
    state = folder.running()
    sick = [one.name for one in state.services if one.state != "ready"]
    if sick:
        return Row("processes", "red", f"not ready: {', '.join(sick)}", f"read {folder.log_of(sick[0])}")
    return Row("processes", "green", f"all {len(state.services)} are ready")
