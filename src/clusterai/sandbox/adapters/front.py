"""One door for all images: each task goes to the strongest walls here that fit it, or is refused.

box = Sandbox(store, folder)
outcome = await box.run(task)
for row in doctor(folder): print(row.name, row.state, row.found, row.cure)
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from clusterai.sandbox.adapters.container import ContainerRunner
from clusterai.sandbox.adapters.native import CannotSandbox, NativeRunner
from clusterai.sandbox.adapters.runner import Leash, Log, Runner
from clusterai.sandbox.adapters.store import BlobStore
from clusterai.sandbox.adapters.wasmbox import WasmRunner
from clusterai.sandbox.core.bubble import Root
from clusterai.sandbox.core.spec import Container, Outcome, RootFs, Task, Wasm, refused

Kind = Literal["wasm", "root", "container"]


class Sandbox:
    """Runs what can be run here. What can't is refused with what is missing: never without walls."""

    def __init__(
        self,
        store: BlobStore,
        folder: Path,
        roots: Mapping[str, Root] | None = None,
        network: Path | None = None,
    ) -> None:
        """
        Args:
            folder: for running tasks; only ours.
            roots: read-only file systems offered by name; by default `python`.
            network: a network namespace made for tasks that bought one.
        """
        self.runners: dict[Kind, Runner] = {}
        self.refusals: dict[Kind, CannotSandbox] = {}
        self._try("root", lambda: NativeRunner(store, folder / "native", roots, network=network))
        self._try("wasm", lambda: WasmRunner(store, folder))
        self._try("container", lambda: ContainerRunner(store, folder / "container"))

    def _try(self, kind: Kind, make: Callable[[], Runner]) -> None:
        try:
            self.runners[kind] = make()
        except CannotSandbox as error:
            self.refusals[kind] = error

    @property
    def missing(self) -> dict[Kind, str]:
        """What can't be run here, with why and the cure."""
        return {kind: str(error) for kind, error in self.refusals.items()}

    @property
    def name(self) -> str:
        return "; ".join(f"{kind}: {runner.name}" for kind, runner in self.runners.items()) or "nothing"

    async def run(
        self,
        task: Task,
        *,
        leash: Leash | None = None,
        on_log: Log | None = None,
        store: BlobStore | None = None,
    ) -> Outcome:
        kind = kind_of(task)
        runner = self.runners.get(kind)
        if runner is None:
            return refused(f"this node can't run {kind} images: {self.missing[kind]}")
        return await runner.run(task, leash=leash, on_log=on_log, store=store)


def kind_of(task: Task) -> Kind:
    match task.image:
        case Wasm():
            return "wasm"
        case RootFs():
            return "root"
        case Container():
            return "container"
