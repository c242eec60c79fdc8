"""Where tenants' code is run: what a task may ask for, the walls around it, and the true reason why it ended.

Everything that strangers send to be executed passes through here: jobs, clusters' workers, queries on private data. The
room refuses to run anything outside a sandbox: where none can be had, a task is refused and `doctor` names the cure. It
knows nothing of money, orders or nodes.
"""

from clusterai.sandbox.adapters.cell import Cell
from clusterai.sandbox.adapters.cgroup import ControlGroups, NoControlGroups
from clusterai.sandbox.adapters.disk import PLACE, Disk, NoDisk, obstacle
from clusterai.sandbox.adapters.doctor import Row, doctor
from clusterai.sandbox.adapters.front import Sandbox
from clusterai.sandbox.adapters.native import CannotSandbox, NativeRunner, host_python
from clusterai.sandbox.adapters.runner import Leash, Log, Runner
from clusterai.sandbox.adapters.store import (
    SPARE_BYTES,
    BlobStore,
    Damaged,
    DiskFull,
    NoSuchBlob,
    Quota,
    StoreFull,
)
from clusterai.sandbox.adapters.volume import LeaseStore, Volumes
from clusterai.sandbox.adapters.wasmbox import OnPart, Proof, Rerun, WasmRunner
from clusterai.sandbox.core.bubble import Bind, Root
from clusterai.sandbox.core.spec import (
    Container,
    Image,
    Limits,
    Outcome,
    Output,
    Reason,
    RootFs,
    Task,
    Usage,
    Wasm,
    decode_task,
)

__all__ = [
    "PLACE",
    "SPARE_BYTES",
    "Bind",
    "BlobStore",
    "CannotSandbox",
    "Cell",
    "Container",
    "ControlGroups",
    "Damaged",
    "Disk",
    "DiskFull",
    "Image",
    "LeaseStore",
    "Leash",
    "Limits",
    "Log",
    "NativeRunner",
    "NoControlGroups",
    "NoDisk",
    "NoSuchBlob",
    "OnPart",
    "Outcome",
    "Output",
    "Proof",
    "Quota",
    "Reason",
    "Rerun",
    "Root",
    "RootFs",
    "Row",
    "Runner",
    "Sandbox",
    "StoreFull",
    "Task",
    "Usage",
    "Volumes",
    "Wasm",
    "WasmRunner",
    "decode_task",
    "doctor",
    "host_python",
    "obstacle",
]
