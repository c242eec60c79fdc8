"""SkyPilot: task YAML. Source: skypilot `sky/utils/schemas.py`."""

from collections.abc import Mapping

from clusterai.work.batch.core.imports.shared import (
    BASH,
    DOLLARS,
    Notes,
    at_least,
    container,
    how_many,
    name_of,
    no_secrets,
    one_machine,
    present,
)
from clusterai.work.batch.core.jobfile import given, known, milli, path_of, resources_of, shell, size
from clusterai.work.batch.core.located import Value
from clusterai.work.batch.core.request import Mount, Request, Wishes

FIELDS = (
    "name",
    "workdir",
    "num_nodes",
    "resources",
    "envs",
    "secrets",
    "file_mounts",
    "setup",
    "run",
    "config",
    "experimental",
    "service",
    "pool",
    "volumes",
    "inputs",
    "outputs",
    "event_callback",
)
RESOURCES = (
    "cpus",
    "memory",
    "accelerators",
    "accelerator_args",
    "instance_type",
    "disk_size",
    "disk_tier",
    "network_tier",
    "image_id",
    "ports",
    "labels",
    "autostop",
    "use_spot",
    "spot_recovery",
    "job_recovery",
    "max_hourly_cost",
    "priority",
    "cloud",
    "region",
    "zone",
    "infra",
    "any_of",
    "ordered",
    "volumes",
    "hooks",
)
_ONLY = frozenset(
    (
        "accelerators",
        "disk_size",
        "infra",
        "cloud",
        "region",
        "zone",
        "use_spot",
        "instance_type",
        "image_id",
        "ports",
        "any_of",
        "ordered",
        "autostop",
        "job_recovery",
        "disk_tier",
        "accelerator_args",
    )
)
_PASSED: Mapping[str, str] = {
    "accelerator_args": "they are for TPUs",
    "instance_type": "machines here belong to many people and have no such names; cpus, memory and accelerators count",
    "disk_tier": "disks aren't told apart here",
    "network_tier": "networks aren't told apart here",
    "labels": "nothing here carries labels",
    "autostop": "a job's machine is given back when the job ends",
    "use_spot": "there is one market, and nothing here is taken back while it runs",
    "spot_recovery": "use `retries`",
    "priority": "there is one queue per provider, first come first served",
    "cloud": "the network is one cloud; providers are chosen by price and standing",
    "region": "providers don't prove where they are",
    "zone": "providers don't prove where they are",
    "infra": "the network is one cloud; providers are chosen by price and standing",
    "max_hourly_cost": DOLLARS,
    "hooks": "nothing runs outside the job",
}


def looks_like(table: dict[str, Value]) -> bool:
    resources = table.get("resources")
    if resources is not None and resources.is_table and _ONLY & resources.table().keys():
        return True
    mounts = table.get("file_mounts")
    if mounts is not None and mounts.is_table:
        return any(path.startswith(("/", "~")) for path in mounts.table())
    return "secrets" in table or "config" in table


def skypilot(value: Value) -> Request:
    table = known(value, FIELDS, "a SkyPilot task")
    notes = Notes()
    for name, why in (
        ("service", "is a server that stays up"),
        ("pool", "is a pool of workers that stays up"),
    ):
        if given(table, name):
            raise table[name].wrong(why, "a job here begins and ends; rent a cluster for what stays up")
    one_machine(table, "num_nodes")
    no_secrets(table)
    if given(table, "volumes"):
        raise table["volumes"].wrong(
            "are disks that outlive the job", "name what the job reads under file_mounts"
        )
    for name in ("config", "experimental", "event_callback"):
        notes.passed(table, name, "it configures SkyPilot itself")
    for name in ("inputs", "outputs"):
        notes.passed(
            table,
            name,
            "SkyPilot uses it to estimate transfer; here everything new in the work folder comes back",
        )
    if not given(table, "run"):
        raise value.wrong("has no 'run'", "say what to run; a machine without a job is a rent")
    mounts: list[Mount] = []
    if given(table, "workdir"):
        if table["workdir"].is_table:
            raise table["workdir"].wrong(
                "is a git repository", "clone it here, and give its folder: jobs have no network"
            )
        mounts.append(Mount("", table["workdir"].text(), table["workdir"].line))
    if given(table, "file_mounts"):
        mounts += [_mount(path, source, notes) for path, source in table["file_mounts"].table().items()]
    resources: dict[str, int | str] = {}
    image = "python"
    if given(table, "resources"):
        resources, image = _resources(table["resources"], notes)
    where = table.get("resources", value)
    return Request(
        format="skypilot",
        name=name_of(table.get("name")),
        image=image,
        argv=shell(table["run"], BASH),
        setup=shell(table["setup"], BASH) if given(table, "setup") else (),
        env=present(table["envs"]) if given(table, "envs") else (),
        mounts=tuple(mounts),
        resources=resources_of(where, **resources),
        wishes=Wishes(retries=_retries(table)),
        unhonoured=notes.all(),
    )


def _mount(path: str, source: Value, notes: Notes) -> Mount:
    if source.is_table or "://" in source.text():
        raise source.wrong(
            "is a bucket or a volume",
            "jobs have no network: fetch it here, and name the folder, so that its content is fixed",
        )
    tidy = path
    for begin in ("~/sky_workdir/", "~/", "/"):
        if path.startswith(begin):
            tidy = path.removeprefix(begin)
            break
    if path.startswith("/"):
        notes.add(
            source.line,
            f"file_mounts.{path}",
            f"a job can't write to /; it finds this at ./{tidy}, in its work folder",
        )
    return Mount(path_of(source, tidy), source.text(), source.line)


def _resources(value: Value, notes: Notes) -> tuple[dict[str, int | str], str]:
    table = known(value, RESOURCES, "SkyPilot's resources")
    for name in ("any_of", "ordered"):
        if given(table, name):
            raise table[name].wrong(
                "lists alternatives", "keep one of them; the plan shows what each would cost"
            )
    if given(table, "ports"):
        raise table["ports"].wrong(
            "open ports to a server", "a job here takes no connections; rent a cluster for that"
        )
    if given(table, "volumes"):
        raise table["volumes"].wrong(
            "are disks that outlive the job", "name what the job reads under file_mounts"
        )
    for name, why in _PASSED.items():
        notes.passed(table, name, why)
    if given(table, "job_recovery") and table["job_recovery"].is_text:
        notes.passed(table, "job_recovery", "a strategy of SkyPilot's controller; use `retries`")
    found: dict[str, int | str] = {}
    if given(table, "cpus"):
        found["cpu_milli"] = milli(at_least(table["cpus"]))
    if given(table, "memory"):
        found["memory_bytes"] = size(at_least(table["memory"]), "G")
    if given(table, "disk_size"):
        found["disk_bytes"] = size(table["disk_size"], "G")
    if given(table, "accelerators"):
        found |= _accelerators(table["accelerators"])
    image = "python"
    if given(table, "image_id"):
        image = container(table["image_id"], "docker:")
    return found, image


def _accelerators(value: Value) -> dict[str, int | str]:
    if value.is_list or (value.is_table and len(value.table()) != 1):
        raise value.wrong("lists alternatives", "keep one of them; the plan shows what each would cost")
    if value.is_table:
        ((name, count),) = value.table().items()
        if ":" in name:
            name, _, number = name.partition(":")
            return {"gpu": name, "gpus": how_many(value, number)}
        return {"gpu": name, "gpus": count.integer(1, 64) if not count.is_null else 1}
    name, _, number = value.text().partition(":")
    return {"gpu": name, "gpus": how_many(value, number or "1")}


def _retries(table: dict[str, Value]) -> int:
    resources = table.get("resources")
    if resources is None or not resources.is_table:
        return 0
    recovery = resources.table().get("job_recovery")
    if recovery is None or not recovery.is_table:
        return 0
    inner = recovery.table()
    return inner["max_restarts_on_errors"].integer(0, 10) if given(inner, "max_restarts_on_errors") else 0
