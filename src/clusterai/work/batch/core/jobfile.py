"""Our job file: small, strict, and read so that an error names the line, what is wrong there, why, and the cure.

The whole of it is in docs/reference/job-yaml.md.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from clusterai.protocol import units
from clusterai.protocol.ids import BadId, digest
from clusterai.protocol.money import BadAmount, parse
from clusterai.work.batch.core.located import BadFile, Value, read
from clusterai.work.batch.core.request import SHELL, Mount, Request, Wishes
from clusterai.work.batch.core.tree import BadPath, checked_path
from clusterai.work.batch.spec import (
    DAY_S,
    MOST_FUEL,
    MOST_REPLICAS,
    MOST_RETRIES,
    MOST_SEED,
    MOST_SEGMENTS,
    MOST_STEPS,
    Check,
    OutOfRange,
    Resources,
    Unfit,
)

FIELDS = (
    "name",
    "image",
    "wasm",
    "args",
    "run",
    "setup",
    "envs",
    "workdir",
    "inputs",
    "file_mounts",
    "each",
    "outputs",
    "expected",
    "resources",
    "network",
    "class",
    "segments",
    "checkpoints",
    "steps",
    "seed",
    "fuel",
    "max_price",
    "max_hourly",
    "deadline",
    "replicas",
    "retries",
    "retry_until_placed",
)
RESOURCES = ("cpu", "cpus", "memory", "disk", "time", "processes", "gpu")
CLASSES: tuple[Check, ...] = ("wasm", "pinned", "unverified")

_OCI = re.compile(r"[a-z0-9][a-z0-9._/:-]*@sha256:[0-9a-f]{64}")
_TAR = re.compile(r"tar:(0x)?[0-9a-fA-F]{64}")
_BASE = re.compile(r"[a-z][a-z0-9-]{0,31}(@0x[0-9a-f]{64})?")
_GPU = re.compile(r"([A-Za-z][A-Za-z0-9 -]*)(?::([0-9]+))?")


def parse_job(text: str) -> Request:
    """
    Raises:
        BadFile: naming line, value, reason and cure.
    """
    return job(read(text))


def job(value: Value) -> Request:
    table = known(value, FIELDS, "a job file")
    image, argv = _program(value, table)
    resources = _resources(table["resources"]) if "resources" in table else Resources()
    outputs, stdout = _outputs(table.get("outputs"))
    return Request(
        name=table["name"].text() if "name" in table else "",
        check=_check(table.get("class")),
        image=image,
        argv=argv,
        setup=shell(table["setup"]) if given(table, "setup") else (),
        env=environment(table["envs"]) if given(table, "envs") else (),
        mounts=_mounts(table),
        each=_each(table["each"]) if given(table, "each") else None,
        outputs=outputs,
        stdout=stdout,
        resources=resources,
        network=table["network"].flag() if given(table, "network") else False,
        seed=table["seed"].integer(0, MOST_SEED) if given(table, "seed") else None,
        segments=_segments(value, table),
        steps=table["steps"].integer(1, MOST_STEPS) if given(table, "steps") else None,
        fuel=table["fuel"].integer(1, MOST_FUEL) if given(table, "fuel") else None,
        expected=_expected(table["expected"]) if given(table, "expected") else None,
        wishes=_wishes(table),
    )


# --- what imports use too ---


def known(value: Value, names: Iterable[str], where: str) -> dict[str, Value]:
    """The table, if it has no other names than these."""
    table = value.table()
    allowed = list(names)
    for name, inner in table.items():
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, 1)
            cure = f"did you mean {near[0]!r}?" if near else f"{where} has: {', '.join(allowed)}"
            raise BadFile(inner.line, name, f"isn't a field of {where}", cure)
    return table


def given(table: dict[str, Value], name: str) -> bool:
    return name in table and not table[name].is_null


def shell(value: Value, command: tuple[str, ...] = SHELL) -> tuple[str, ...]:
    """A script for the shell; a list is a program with its arguments, run as it stands."""
    if value.is_list:
        return tuple(value.texts())
    text = value.text()
    if not text.strip():
        raise value.wrong("is empty", "leave it out, or say what to run")
    return (*command, text)


def environment(value: Value) -> tuple[tuple[str, str], ...]:
    """Names and values, or a list of NAME=VALUE."""
    found: dict[str, str] = {}
    if value.is_list:
        for item in value.items():
            name, equals, text = item.text().partition("=")
            if not equals:
                raise item.wrong(
                    "has no value", f"write {name}=something: variables of your shell aren't taken over"
                )
            if name in found:
                raise item.wrong(f"gives {name} a second time")
            found[name] = text
    else:
        for name, item in value.table().items():
            if item.is_null:
                raise item.wrong("has no value", f'write {name}: "" for an empty one')
            found[name] = item.text()
    return tuple(sorted(found.items()))


def size(value: Value, unit: str = "") -> int:
    try:
        return units.size(value.text(), unit)
    except units.BadUnit as error:
        raise value.wrong(str(error)) from None


def duration(value: Value) -> int:
    try:
        return units.duration(value.text())
    except units.BadUnit as error:
        raise value.wrong(str(error)) from None


def milli(value: Value) -> int:
    try:
        return units.milli(value.text())
    except units.BadUnit as error:
        raise value.wrong(str(error)) from None


def resources_of(line: Value, **fields: int | str) -> Resources:
    """Resources whose bounds are told with a line."""
    try:
        return Resources(**fields)  # type: ignore[arg-type]
    except OutOfRange as error:
        raise line.wrong(spoken(error)) from None
    except Unfit as error:
        raise line.wrong(str(error)) from None


def _in_bytes(count: int) -> str:
    for unit, name in ((1024**4, "TB"), (1024**3, "GB"), (1024**2, "MB"), (1024, "KB")):
        if count >= unit:
            return f"{count / unit:.4g}{name}"
    return f"{count}B"


def _in_time(seconds: int) -> str:
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds and seconds % unit == 0:
            return f"{seconds // unit}{name}"
    return f"{seconds}s"


_SPOKEN: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "cpu_milli": ("cpus", lambda milli: f"{milli / 1000:g}"),
    "memory_bytes": ("memory", _in_bytes),
    "disk_bytes": ("disk", _in_bytes),
    "time_s": ("time", _in_time),
}


def spoken(error: OutOfRange) -> str:
    """What is out of its bounds, in the words and units in which people write it."""
    name, write = _SPOKEN.get(error.field, (error.field, str))
    value, low, high = (write(it) for it in (error.value, error.low, error.high))
    return f"{name} is {value}; make it between {low} and {high}"


# --- our own fields ---


def _program(whole: Value, table: dict[str, Value]) -> tuple[str, tuple[str, ...]]:
    asked = [name for name in ("wasm", "run") if given(table, name)]
    if len(asked) != 1:
        raise whole.wrong(
            "says twice what to run" if asked else "doesn't say what to run", "give one of 'run' and 'wasm'"
        )
    if asked == ["run"]:
        if given(table, "args"):
            raise table["args"].wrong("belongs to 'wasm'", "put arguments into 'run'")
        return _image(table["image"]) if given(table, "image") else "python", shell(table["run"])
    if given(table, "image"):
        raise table["image"].wrong("and 'wasm' are both given", "a module needs no image")
    module = table["wasm"]
    if not module.text().endswith(".wasm"):
        raise module.wrong(f"is {module.text()!r}", "name a file that ends in .wasm")
    return module.text(), tuple(table["args"].texts()) if given(table, "args") else ()


def _image(value: Value) -> str:
    text = value.text()
    if _BASE.fullmatch(text) or _TAR.fullmatch(text) or _OCI.fullmatch(text):
        return text
    if re.fullmatch(r"[a-z0-9][a-z0-9._/:-]*", text):
        raise value.wrong(
            f"names {text!r} by a tag, and what a tag means can change",
            "name the content: NAME@sha256:… as `docker images --digests` or `skopeo inspect` show it",
        )
    raise value.wrong(
        f"is {text[:60]!r}", "use python (or another base that providers offer), tar:0x…, or NAME@sha256:…"
    )


def _check(value: Value | None) -> Check | None:
    if value is None or value.is_null:
        return None
    text = value.text()
    for check in CLASSES:
        if text == check:
            return check
    raise value.wrong(f"is {text!r}", f"use one of {', '.join(CLASSES)}")


def _resources(value: Value) -> Resources:
    table = known(value, RESOURCES, "resources")
    found: dict[str, int | str] = {}
    for name in ("cpu", "cpus"):
        if given(table, name):
            found["cpu_milli"] = milli(table[name])
    if given(table, "memory"):
        found["memory_bytes"] = size(table["memory"], "G")
    if given(table, "disk"):
        found["disk_bytes"] = size(table["disk"], "G")
    if given(table, "time"):
        found["time_s"] = duration(table["time"])
    if given(table, "processes"):
        found["processes"] = table["processes"].integer(1, 32_768)
    if given(table, "gpu"):
        found |= _gpu(table["gpu"])
    return resources_of(value, **found)


def _gpu(value: Value) -> dict[str, int | str]:
    text = value.text()
    if text.isdecimal():
        return {"gpus": value.integer(0, 64)}
    found = _GPU.fullmatch(text)
    if not found:
        raise value.wrong(f"is {text[:40]!r}", "use a number, H100, or H100:2")
    return {"gpu": found[1], "gpus": int(found[2] or 1)}


def _mounts(table: dict[str, Value]) -> tuple[Mount, ...]:
    found: list[Mount] = []
    if given(table, "workdir"):
        found.append(Mount("", table["workdir"].text(), table["workdir"].line))
    for name in ("inputs", "file_mounts"):
        if given(table, name):
            for path, source in table[name].table().items():
                found.append(Mount(path_of(source, path), source.text(), source.line))
    return tuple(found)


def path_of(value: Value, text: str) -> str:
    tidy = text.removeprefix("./").rstrip("/")
    try:
        return "" if tidy in (".", "") else checked_path(tidy)
    except BadPath as error:
        raise value.wrong(str(error)) from None


def _each(value: Value) -> Mount:
    table = value.table()
    if len(table) != 1:
        raise value.wrong("must be one line", "write PATH: PATTERN, such as input.csv: data/*.csv")
    ((path, pattern),) = table.items()
    return Mount(path_of(pattern, path), pattern.text(), pattern.line)


def _outputs(value: Value | None) -> tuple[tuple[str, ...], bool]:
    if value is None or value.is_null:
        return (), False
    found: set[str] = set()
    for item in [value] if value.is_text else value.items():
        path = path_of(item, item.text())
        if not path:
            raise item.wrong(
                "names the whole folder", "leave outputs out: then all that is new or changed comes back"
            )
        if path in found:
            raise item.wrong(f"names {path!r} a second time")
        found.add(path)
    return tuple(sorted(found)), "stdout" in found


def _segments(whole: Value, table: dict[str, Value]) -> int | None:
    asked = [name for name in ("segments", "checkpoints") if given(table, name)]
    if len(asked) == 2:
        raise whole.wrong(
            "gives both segments and checkpoints", "n checkpoints make n + 1 segments: keep one of them"
        )
    if not asked:
        return None
    if asked == ["segments"]:
        return table["segments"].integer(1, MOST_SEGMENTS)
    return table["checkpoints"].integer(0, MOST_SEGMENTS - 1) + 1


def _expected(value: Value) -> bytes:
    try:
        return digest(value.text())
    except BadId as error:
        raise value.wrong(
            str(error), "`clusterai run --local` prints the digest of a job's outputs"
        ) from None


def _amount(value: Value) -> int:
    try:
        return parse(value.text())
    except BadAmount as error:
        raise value.wrong(str(error)) from None


def _wishes(table: dict[str, Value]) -> Wishes:
    deadline = duration(table["deadline"]) if given(table, "deadline") else None
    if deadline is not None and not 1 <= deadline <= 365 * DAY_S:
        raise table["deadline"].wrong(f"is {deadline} s from now", "make it between a second and a year")
    return Wishes(
        max_price_wei=_amount(table["max_price"]) if given(table, "max_price") else None,
        max_hourly_wei=_amount(table["max_hourly"]) if given(table, "max_hourly") else None,
        deadline_s=deadline,
        replicas=table["replicas"].integer(1, MOST_REPLICAS) if given(table, "replicas") else 1,
        retries=table["retries"].integer(0, MOST_RETRIES) if given(table, "retries") else 0,
        retry_until_placed=table["retry_until_placed"].flag()
        if given(table, "retry_until_placed")
        else False,
    )
