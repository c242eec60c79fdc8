"""OCI images, by digest, behind the same walls as everything else.

Podman is asked for what it is best at, getting and unpacking an image; it doesn't run it. Its own way (podman + runc) has a
second set of walls with a second set of gaps (rootless, it ignores limits on cgroups v1), starts several times slower, and
would need every attack of the tests again. So an image is mounted, read-only, and shown to the native runner as a root.

What this means to an image: its program runs as an ordinary user, never as root, its root can't be written, and it
writes into `/job`.
"""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import msgspec

from clusterai.sandbox.adapters.native import CannotSandbox, NativeRunner
from clusterai.sandbox.adapters.roots import shown
from clusterai.sandbox.adapters.runner import Leash, Log
from clusterai.sandbox.adapters.store import BlobStore
from clusterai.sandbox.core.bubble import Root
from clusterai.sandbox.core.spec import Container, Outcome, RootFs, Task, refused

PATIENCE_S = 60


class _Config(msgspec.Struct, frozen=True, rename="pascal"):
    env: list[str] | None = None


class _Image(msgspec.Struct, frozen=True, rename="pascal"):
    config: _Config = _Config()


class NoSuchImage(LookupError):
    """The image is not on this node; the message says how it gets there."""


class ContainerRunner:
    """Runs `Container` tasks.

    Raises:
        CannotSandbox: at construction: no podman, not root, or no native walls.
    """

    def __init__(self, store: BlobStore, folder: Path, podman: Path | None = None) -> None:
        found = podman or shutil.which("podman")
        if found is None:
            raise CannotSandbox(
                "podman is missing", "apt-get install podman; or pack the image as a tar and use RootFs"
            )
        if not hasattr(os, "geteuid") or os.geteuid() != 0:
            raise CannotSandbox(
                "only root may mount images",
                "run the node as root, or pack the image as a tar and use RootFs",
            )
        self._podman = str(found)
        self._native = NativeRunner(store, folder, {})

    @property
    def name(self) -> str:
        return f"podman's image in {self._native.name}"

    async def run(
        self,
        task: Task,
        *,
        leash: Leash | None = None,
        on_log: Log | None = None,
        store: BlobStore | None = None,
    ) -> Outcome:
        if not isinstance(task.image, Container):
            return refused("this runs container images only", self.name)
        image = task.image.image
        try:
            root = await asyncio.to_thread(self._mount, image)
        except NoSuchImage as error:
            return refused(str(error), self.name)
        try:
            inner = msgspec.structs.replace(task, image=RootFs("image"))
            outcome = await self._native.run(inner, leash=leash, on_log=on_log, store=store, root=root)
            return msgspec.structs.replace(outcome, runner=self.name)
        finally:
            # Podman counts its mounts of an image: another task on the same one keeps its own.
            await asyncio.to_thread(self._call, "image", "unmount", image)

    def _mount(self, image: str) -> Root:
        told = self._call("image", "inspect", image)
        if told.returncode != 0:
            raise NoSuchImage(
                f"image {image} is not on this node: have it pulled (podman pull NAME@{image}), or choose another node"
            )
        try:
            config = msgspec.json.decode(told.stdout, type=list[_Image])[0].config
        except (msgspec.DecodeError, msgspec.ValidationError, IndexError) as error:
            raise NoSuchImage(f"image {image} has no readable configuration: {error}") from None
        mounted = self._call("image", "mount", image)
        place = Path(mounted.stdout.decode().strip() or "/nowhere")
        if mounted.returncode != 0 or not place.is_dir():
            raise NoSuchImage(
                f"image {image} can't be mounted: {mounted.stderr.decode('utf-8', 'replace').strip()[:200]}"
            )
        env = dict(entry.split("=", 1) for entry in config.env or [] if "=" in entry and "\0" not in entry)
        path = env.pop("PATH", "/usr/local/bin:/usr/bin:/bin")
        return msgspec.structs.replace(shown(place, "image"), path=path, env=env)

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                [self._podman, *arguments], capture_output=True, timeout=PATIENCE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess([], 1, b"", str(error).encode())
