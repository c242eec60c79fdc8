"""From what was asked for to a job: files are read and addressed by content, and what was left open is decided here."""

import secrets
import time
from pathlib import Path

import msgspec

from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.sandbox import BlobStore, NoSuchBlob, StoreFull
from clusterai.sandbox.core import module
from clusterai.work.batch.adapters import trees
from clusterai.work.batch.adapters.base import host_base
from clusterai.work.batch.core.located import BadFile
from clusterai.work.batch.core.request import Mount, Request
from clusterai.work.batch.core.tree import BadPath, Tree, overlay
from clusterai.work.batch.spec import (
    MOST_TASKS,
    Check,
    Image,
    JobArray,
    JobSpec,
    OutOfRange,
    Resources,
    Root,
    Unfit,
)

FUEL = 10**11
"""Of a module, where nothing is said: about a quarter of an hour of this engine."""
SEGMENTS = 256
STEP = "clusterai_step"


class Gathered(msgspec.Struct, frozen=True):
    """A job with all its content in the store.

    Attributes:
        skipped: names of files that weren't taken: hidden ones, links, odd names.
    """

    array: JobArray
    skipped: tuple[str, ...]


def gather(request: Request, here: Path, store: BlobStore) -> Gathered:
    """
    Args:
        here: what relative paths are relative to: the job file's folder.

    Raises:
        BadFile: a file isn't there, or the job can't be one; with the line that asks for it.
    """
    image, stepped = _image(request, here, store)
    check: Check = request.check or ("wasm" if image.form == "wasm" else "unverified")
    if image.form == "base" and check == "pinned" and image.digest == ZERO_DIGEST:
        image = Image("base", host_base(image.name).digest(), image.name)
    skipped: list[str] = []
    tree = overlay([_taken(mount, here, store, skipped) for mount in request.mounts])
    tasks: list[Root] = []
    if request.each is not None:
        matched = _matches(request.each, here)
        tasks += [_root(_read(request.each, path, store, skipped), store) for path in matched]
    module_segments = SEGMENTS if stepped else 1
    try:
        spec = JobSpec(
            name=request.name or _name(request),
            check=check,
            image=image,
            argv=request.argv,
            setup=request.setup,
            env=request.env,
            inputs=(_root(tree, store),) if tree.entries else (),
            outputs=request.outputs,
            # What a module prints is the same everywhere; what a program prints often tells times.
            stdout=request.stdout or (check == "wasm" and not request.outputs),
            resources=request.resources if check != "wasm" else _module_resources(request.resources),
            network=request.network,
            seed=secrets.randbits(62) if request.seed is None else request.seed,
            clock_s=int(time.time()),
            segments=request.segments or (module_segments if check == "wasm" else 1),
            steps=request.steps or 1,
            fuel=(request.fuel or FUEL) if check == "wasm" else 0,
            expected=request.expected,
        )
        return Gathered(JobArray(spec, tuple(tasks)), tuple(dict.fromkeys(skipped)))
    except (Unfit, OutOfRange, BadPath) as error:
        raise BadFile(1, "the job", str(error)) from None


def contents(array: JobArray, store: BlobStore) -> list[tuple[Digest, int]]:
    """All that a gateway must have before it can place the job: digests and sizes, each once.

    Raises:
        NoSuchBlob, Damaged, canonical.Malformed.
    """
    found: dict[Digest, int] = {}
    if array.job.image.form in ("wasm", "tar"):
        image = Digest(array.job.image.digest)
        found[image] = store.size(image)
    for root in dict.fromkeys((*array.job.inputs, *array.tasks)):
        digest = Digest(root.digest)
        found[digest] = store.size(digest)
        found.update(trees.load(digest, store).contents())
    return list(found.items())


def _image(request: Request, here: Path, store: BlobStore) -> tuple[Image, bool]:
    """The image, and whether it is a module that can be cut into segments."""
    text = request.image
    if text.endswith(".wasm"):
        path = here / Path(text).expanduser()
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise BadFile(1, "wasm", f"{path} can't be read: {error.strerror}") from None
        try:
            facts = module.read(raw)
        except module.BadModule as error:
            raise BadFile(1, "wasm", f"{path} is no module that can be run: {error}") from None
        return Image("wasm", store.put(raw), path.name[:64]), STEP in facts.exports
    if text.startswith("tar:"):
        return Image("tar", Digest(bytes.fromhex(text.removeprefix("tar:").removeprefix("0x")))), False
    name, at, digest = text.partition("@")
    if digest.startswith("sha256:"):
        return Image("oci", bytes.fromhex(digest.removeprefix("sha256:")), name), False
    return Image("base", bytes.fromhex(digest.removeprefix("0x")) if at else ZERO_DIGEST, name), False


def _taken(mount: Mount, here: Path, store: BlobStore, skipped: list[str]) -> Tree:
    if mount.source.startswith("0x"):
        try:
            return trees.load(bytes.fromhex(mount.source[2:]), store)
        except (ValueError, NoSuchBlob) as error:
            raise BadFile(
                mount.line, mount.source[:20], f"isn't the digest of a listing here: {error}"
            ) from None
    return _read(mount, here / Path(mount.source).expanduser(), store, skipped)


def _read(mount: Mount, path: Path, store: BlobStore, skipped: list[str]) -> Tree:
    try:
        if not path.exists():
            raise BadFile(
                mount.line, str(path), "isn't there", "name a file or a folder, relative to the job file"
            )
        tree, left = trees.take(path, store, mount.path)
    except (OSError, StoreFull) as error:
        raise BadFile(mount.line, str(path), f"can't be read: {error}") from None
    except (BadPath, OutOfRange) as error:
        raise BadFile(mount.line, str(path), str(error)) from None
    skipped += left
    return tree


def _matches(each: Mount, here: Path) -> list[Path]:
    pattern = Path(each.source).expanduser()
    base, relative = (
        (Path("/"), str(pattern.relative_to("/"))) if pattern.is_absolute() else (here, str(pattern))
    )
    found = sorted(path for path in base.glob(relative) if path.is_file())
    if not found:
        raise BadFile(
            each.line, f"each: {each.source}", "matches no file", "give a pattern such as data/*.csv"
        )
    if len(found) > MOST_TASKS:
        raise BadFile(
            each.line,
            f"each: {each.source}",
            f"matches {len(found)} files",
            f"at most {MOST_TASKS} are one array",
        )
    return found


def _root(tree: Tree, store: BlobStore) -> Root:
    return Root(trees.keep(tree, store), len(tree.entries), tree.size)


def _name(request: Request) -> str:
    source = request.image if request.image.endswith(".wasm") else next(
        (word for word in request.argv if not word.startswith(("-", "/"))), "job"
    )  # fmt: skip
    words = "".join(
        letter if letter.isascii() and letter.isalnum() else "-"
        for letter in Path((source.split() or ["job"])[0]).stem
    )
    return words.strip("-")[:64] or "job"


def _module_resources(wanted: Resources) -> Resources:
    """A module is one thread."""
    return msgspec.structs.replace(wanted, cpu_milli=min(wanted.cpu_milli, 1000), processes=1)
