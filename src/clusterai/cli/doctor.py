"""The rows of `clusterai node doctor`: what was found, and the cure where it isn't right.

Everything is looked at on this machine; nothing is changed.
"""

import importlib.util
import os
import platform
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Literal

import msgspec

from clusterai.cli.local.folder import DataFolder
from clusterai.cli.settings import default_models

LEAST_MEMORY_BYTES = 1_500_000_000
"""One engine with a small model and its cache took 0.75 to 0.95 GB."""
LEAST_DISK_BYTES = 1_000_000_000
MOST_DRIFT_S = 5.0


class Row(msgspec.Struct, frozen=True):
    """`state`: green is right, yellow works with a limit, red doesn't work until it is cured."""

    name: str
    state: Literal["green", "yellow", "red"]
    found: str
    cure: str = ""


def examine(folder: DataFolder, model: str) -> list[Row]:
    rows = [_python(), _cores(), _memory(), _disk(folder.root), *_engine(), _accelerator(), _model(model)]
    if folder.is_held():
        rows += _network(folder)
    else:
        rows.append(
            Row("network", "yellow", f"none runs in {folder.root}", "clusterai up, or node join another")
        )
    return rows


def _python() -> Row:
    version = platform.python_version()
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return Row("python", "green", version)
    return Row("python", "red", version, "install Python 3.11 or 3.12: the engine has wheels for these")


def _cores() -> Row:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0]
    found = f"{count} usable, load {load:.1f}"
    if load > 2 * count:
        return Row(
            "cores", "yellow", found, "others use this machine: answers will be slow, and routing will see it"
        )
    return Row("cores", "green", found)


def _memory() -> Row:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return Row("memory", "yellow", "this system doesn't tell", "make sure that 1.5 GB are free")
    if free < LEAST_MEMORY_BYTES:
        return Row("memory", "red", f"{free / 1e9:.1f} GB free", "end other programs: a node needs 1.5 GB")
    return Row("memory", "green", f"{free / 1e9:.1f} GB free")


def _disk(root: Path) -> Row:
    place = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < LEAST_DISK_BYTES:
        return Row(
            "disk",
            "red",
            f"{free / 1e9:.1f} GB free at {place}",
            f"free 1 GB, or use --data elsewhere than {place}",
        )
    return Row("disk", "green", f"{free / 1e9:.0f} GB free at {place}")


def _engine() -> list[Row]:
    parts = {"openvino": "node", "openvino_genai": "node", "pyrevm": "chain", "uvicorn": "gateway"}
    missing = [part for part in parts if importlib.util.find_spec(part) is None]
    if missing:
        return [Row("packages", "red", f"missing: {', '.join(missing)}", "pip install 'clusterai[local]'")]
    return [Row("packages", "green", "engine, chain and gateway are installed")]


def _accelerator() -> Row:
    """What OpenVINO could use; NVIDIA's need the vLLM engine, which isn't here yet."""
    if shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists():
        return Row(
            "accelerator",
            "yellow",
            "an NVIDIA GPU",
            "it isn't used by this version: answers come from the CPU",
        )
    if Path("/dev/dri/renderD128").exists():
        return Row("accelerator", "yellow", "a GPU that OpenVINO may know", "this version uses the CPU")
    return Row("accelerator", "green", "none: answers come from the CPU")


def _model(name: str) -> Row:
    from clusterai.models import Altered, ModelStore, NoSuchModel

    if name == "tiny":
        return Row("model", "green", "tiny: a toy without weights")
    store = ModelStore(default_models())
    try:
        model = store.get(name)
        store.verify(model)
    except (NoSuchModel, Altered) as error:
        return Row("model", "red", str(error), "clusterai models lists those that are here")
    if model.card.calibration is None:
        return Row(
            "model",
            "yellow",
            f"{name}: weights verified",
            "no calibration: audits need more tokens to convict",
        )
    return Row("model", "green", f"{name}: weights verified, calibrated")


def _network(folder: DataFolder) -> list[Row]:
    from clusterai.ledger.adapters.network import BadNetwork, load_network

    state = folder.running()
    rows: list[Row] = []
    sick = [one.name for one in state.services if one.state != "ready"]
    rows.append(
        Row("processes", "red", f"not ready: {', '.join(sick)}", f"read {folder.log_of(sick[0])}")
        if sick
        else Row("processes", "green", f"all {len(state.services)} are ready")
    )
    try:
        network = load_network(folder.manifest)
    except BadNetwork as error:
        return [*rows, Row("manifest", "red", str(error))]
    rows += [_reach("chain", url) for url in network.rpc_urls]
    rows.append(_reach("gateway", state.gateway))
    rows += _standing(folder)
    return rows


def _reach(name: str, url: str) -> Row:
    host, _, port = url.rpartition("//")[2].partition(":")
    began_s = time.monotonic()
    try:
        socket.create_connection((host, int(port.split("/")[0] or 80)), timeout=3).close()
    except OSError as error:
        return Row(
            name, "red", f"{url}: {error.strerror or error}", "clusterai status; is a firewall in between?"
        )
    return Row(name, "green", f"{url}, {1000 * (time.monotonic() - began_s):.1f} ms")


def _standing(folder: DataFolder) -> list[Row]:
    """What the gateway says of each provider, and whether its clock and ours agree."""
    from clusterai.protocol.money import show as money
    from clusterai.sdk import ApiError, Client, Unreachable

    try:
        with Client(folder.running().gateway, folder.local_account().key) as client:
            drift_s = client.status().chain_time_s - time.time()
            nodes = client.nodes()
    except (Unreachable, ApiError) as error:
        return [Row("gateway", "red", str(error), "clusterai status")]
    clock = Row("clock", "green", f"{drift_s:+.0f} s from the chain's")
    if abs(drift_s) > MOST_DRIFT_S:
        clock = Row("clock", "red", f"{drift_s:+.0f} s from the chain's", "let the system set its time: NTP")
    rows = [clock]
    for node in nodes:
        name = node.provider[:12] + "…"
        found = f"{node.state}, stake {money(node.stake_wei)}"
        cure = {"barred": "clusterai demo restore", "offline": "read its log; is it linked to this gateway?"}
        state = "green" if node.state == "ready" else "red"
        rows.append(
            Row(name, state, found, "" if state == "green" else cure.get(node.state, "clusterai node list"))
        )
    return rows
