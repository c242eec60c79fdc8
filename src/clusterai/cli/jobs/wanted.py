"""From a command line to what is wanted: a job file, a module, or a command, and the flags over it."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from clusterai.cli.failure import Exit, Failure
from clusterai.protocol import units
from clusterai.protocol.money import BadAmount, parse
from clusterai.work.batch.adapters.gather import Gathered, gather
from clusterai.work.batch.core.imports import parse as parse_file
from clusterai.work.batch.core.imports import recounted
from clusterai.work.batch.core.jobfile import spoken
from clusterai.work.batch.core.located import MOST_BYTES, BadFile
from clusterai.work.batch.core.request import Mount, Request, Wishes
from clusterai.work.batch.spec import Check, OutOfRange, Resources, SecretInSpec, Unfit

FILES = (".yaml", ".yml")
MODULE = ".wasm"
CLASSES: tuple[Check, ...] = ("wasm", "pinned", "unverified")


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """What was said on the command line; None where nothing was. Each goes over what a file says."""

    name: str | None = None
    check: str | None = None
    image: str | None = None
    workdir: Path | None = None
    env: tuple[str, ...] = ()
    cpus: str | None = None
    memory: str | None = None
    disk: str | None = None
    time: str | None = None
    gpu: str | None = None
    segments: int | None = None
    seed: int | None = None
    max_price: str | None = None
    max_hourly: str | None = None
    deadline: str | None = None
    replicas: int | None = None
    retries: int | None = None
    retry_until_placed: bool = False


class Wanted(msgspec.Struct, frozen=True):
    request: Request
    here: Path
    """what relative paths are relative to"""
    source: str
    """the file's name, for errors"""


def read(words: list[str], flags: Flags) -> Wanted:
    """
    Raises:
        Failure: exit code 2, with line, reason and cure.
    """
    if not words:
        raise Failure(
            "nothing to run is named",
            "",
            "clusterai run job.yaml, clusterai run module.wasm, or clusterai run -- python train.py",
            Exit.USAGE,
        )
    first = Path(words[0])
    if first.suffix in FILES:
        if len(words) > 1:
            raise Failure(
                f"{words[1]!r} is one word too many", "a job file says itself what to run", code=Exit.USAGE
            )
        wanted = Wanted(_file(first), first.resolve().parent, str(first))
    elif first.suffix == MODULE:
        request = Request(format="command line", image=str(first.resolve()), argv=tuple(words[1:]))
        wanted = Wanted(request, Path.cwd(), words[0])
    else:
        mounts = () if flags.workdir else (Mount("", "."),)
        wanted = Wanted(
            Request(format="command line", argv=tuple(words), mounts=mounts), Path.cwd(), "the command line"
        )
    return msgspec.structs.replace(wanted, request=_flagged(wanted.request, flags))


def gathered(wanted: Wanted, store_at: Path) -> Gathered:
    """
    Raises:
        Failure: exit code 2.
    """
    from clusterai.sandbox import BlobStore

    try:
        return gather(wanted.request, wanted.here, BlobStore(store_at))
    except BadFile as error:
        raise told(wanted.source, error) from None


def told(source: str, error: BadFile) -> Failure:
    if error.others:
        every = (error, *error.others)
        each = (f"line {it.line}: {it.what} {it.why}" + (f"; {it.cure}" if it.cure else "") for it in every)
        return Failure(
            f"{source} says {len(every)} things that no job here can do",
            "\n        ".join(each),
            code=Exit.USAGE,
        )
    where = f"{source}, line {error.line}" if Path(source).suffix in FILES else source
    return Failure(f"{where}: {error.what} {error.why}", "", error.cure, Exit.USAGE)


def cache() -> Path:
    """Where content and the logs of local runs lie."""
    if named := os.environ.get("CLUSTERAI_CACHE"):
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("clusterai")


def _file(path: Path) -> Request:
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1).decode()
    except OSError as error:
        raise Failure(f"{path} can't be read", error.strerror or "", code=Exit.USAGE) from None
    except UnicodeDecodeError:
        raise Failure(f"{path} is no text", "a job file is YAML in UTF-8", code=Exit.USAGE) from None
    try:
        return parse_file(text)
    except BadFile as error:
        raise told(str(path), error) from None


def _flagged(request: Request, flags: Flags) -> Request:
    changed: dict[str, object] = {
        "resources": _resources(request.resources, flags),
        "wishes": _wishes(request.wishes, flags),
    }
    if flags.name is not None:
        changed["name"] = flags.name
    if flags.check is not None:
        found = next((check for check in CLASSES if check == flags.check), None)
        if found is None:
            raise Failure(
                f"--class is {flags.check!r}", f"it is one of {', '.join(CLASSES)}", code=Exit.USAGE
            )
        changed["check"] = found
    if flags.image is not None:
        changed["image"] = flags.image
    if flags.workdir is not None:
        changed["mounts"] = (Mount("", str(flags.workdir.resolve())), *request.mounts)
    if flags.env:
        changed["env"] = env = _environment(request.env, flags.env)
        given = {f"${name}" for name, _ in env}
        changed["unhonoured"] = tuple(it for it in request.unhonoured if it.what not in given)
    if flags.segments is not None:
        changed["segments"] = flags.segments
    if flags.seed is not None:
        changed["seed"] = flags.seed
    return recounted(msgspec.structs.replace(request, **changed), request.resources.gpus)


def _environment(env: tuple[tuple[str, str], ...], given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    found = dict(env)
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Failure(
                f"--env {name} has no value",
                "variables of your shell aren't taken over",
                f"--env {name}=…",
                Exit.USAGE,
            )
        found[name] = value
    return tuple(sorted(found.items()))


_SUCH_AS = {
    "--cpus": "2",
    "--memory": "2GB",
    "--disk": "10GB",
    "--time": "1h30m",
    "--max-price": "2.5",
    "--max-hourly": "0.5",
    "--deadline": "2h",
}


def _read(flag: str, text: str, read: Callable[[str], int]) -> int:
    """
    Raises:
        Failure: exit code 2; it says how to write it.
    """
    try:
        return read(text)
    except (BadAmount, units.BadUnit) as error:
        raise Failure(
            f"{flag} {text[:40]} can't be read", str(error), f"{flag} {_SUCH_AS[flag]}", Exit.USAGE
        ) from None


def _gigabytes(text: str) -> int:
    return units.size(text, "G")


def _resources(before: Resources, flags: Flags) -> Resources:
    changed: dict[str, int | str] = {}
    try:
        if flags.cpus is not None:
            changed["cpu_milli"] = _read("--cpus", flags.cpus, units.milli)
        if flags.memory is not None:
            changed["memory_bytes"] = _read("--memory", flags.memory, _gigabytes)
        if flags.disk is not None:
            changed["disk_bytes"] = _read("--disk", flags.disk, _gigabytes)
        if flags.time is not None:
            changed["time_s"] = _read("--time", flags.time, units.duration)
        if flags.gpu is not None:
            name, _, count = flags.gpu.partition(":")
            if count and not count.isdecimal():
                raise Failure(
                    f"--gpu {flags.gpu[:40]} can't be read", "", "--gpu H100:2, or a number", Exit.USAGE
                )
            changed |= {"gpus": int(name)} if name.isdecimal() else {"gpu": name, "gpus": int(count or "1")}
        return msgspec.structs.replace(before, **changed)
    except OutOfRange as error:
        raise Failure(spoken(error), "", "clusterai run --help", Exit.USAGE) from None
    except (Unfit, SecretInSpec, ValueError) as error:
        raise Failure(str(error), "", "clusterai run --help", Exit.USAGE) from None


def _wishes(before: Wishes, flags: Flags) -> Wishes:
    changed: dict[str, object] = {}
    if flags.max_price is not None:
        changed["max_price_wei"] = _read("--max-price", flags.max_price, parse)
    if flags.max_hourly is not None:
        changed["max_hourly_wei"] = _read("--max-hourly", flags.max_hourly, parse)
    if flags.deadline is not None:
        changed["deadline_s"] = _read("--deadline", flags.deadline, units.duration)
    if flags.replicas is not None:
        changed["replicas"] = flags.replicas
    if flags.retries is not None:
        changed["retries"] = flags.retries
    if flags.retry_until_placed:
        changed["retry_until_placed"] = True
    return msgspec.structs.replace(before, **changed)
