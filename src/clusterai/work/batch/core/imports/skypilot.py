"""SkyPilot: task YAML. Source: skypilot `sky/utils/schemas.py`."""

from collections.abc import Mapping

from clusterai.work.batch.core.imports.shared import (
    BASH,
    DOLLARS,
    Notes,
    at_least,
    container,
    filled,
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
    "managed_secrets",
    "volume_mounts",
    "file_mounts_mapping",
    "api_server_access",
)
RESOURCES = (
    "cpus",
    "memory",
    "accelerators",
    "accelerator_args",
    "instance_type",
    "disk_size",
    "disk_tier",
    "local_disk",
    "ephemeral_storage",
    "network_tier",
    "image_id",
    "container_image",
    "ports",
    "labels",
    "autostop",
    "use_spot",
    "spot_recovery",
    "job_recovery",
    "max_hourly_cost",
    "priority",
    "priority_class",
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
        "container_image",
        "max_hourly_cost",
        "network_tier",
        "labels",
        "priority_class",
    )
)
_ONLY_AT_TOP = frozenset(
    (
        *("num_nodes", "secrets", "managed_secrets", "config", "experimental", "service", "pool", "volumes"),
        *("event_callback", "volume_mounts", "api_server_access"),
    )
)
_PASSED: Mapping[str, str] = {
    "accelerator_args": "they are for TPUs",
    "instance_type": "machines here belong to many people and have no such names; cpus, memory and accelerators count",
    "disk_tier": "disks aren't told apart here",
    "local_disk": "disks aren't told apart here",
    "ephemeral_storage": "a job has one disk, as large as disk_size",
    "network_tier": "networks aren't told apart here",
    "labels": "nothing here carries labels",
    "autostop": "a job's machine is given back when the job ends",
    "use_spot": "there is one market, and nothing here is taken back while it runs",
    "spot_recovery": "use `retries`",
    "priority": "there is one queue per provider, first come first served",
    "priority_class": "there is one queue per provider, first come first served",
    "cloud": "the network is one cloud; providers are chosen by price and standing",
    "region": "providers don't prove where they are",
    "zone": "providers don't prove where they are",
    "infra": "the network is one cloud; providers are chosen by price and standing",
    "max_hourly_cost": DOLLARS,
    "hooks": "nothing runs outside the job",
}


def looks_like(table: dict[str, Value]) -> bool:
    if _ONLY_AT_TOP & table.keys():
        return True
    resources = table.get("resources")
    if resources is not None and resources.is_table:
        wanted = resources.table()
        amounts = (wanted[name] for name in ("cpus", "memory") if name in wanted)
        if _ONLY & wanted.keys() or any(it.is_text and it.text().endswith(("+", "x")) for it in amounts):
            return True
    mounts = table.get("file_mounts")
    if mounts is not None and mounts.is_table:
        return any(path.startswith(("/", "~")) for path in mounts.table())
    return False


def skypilot(value: Value) -> Request:
    notes = Notes()
    with notes.whole():
        return _task(value, notes)


def _task(value: Value, notes: Notes) -> Request:
    table = known(value, FIELDS, "a SkyPilot task")
    for name, why in (
        ("service", "is a server that stays up"),
        ("pool", "is a pool of workers that stays up"),
    ):
        if given(table, name):
            notes.refuse(table[name], why, "a job here begins and ends; rent a cluster for what stays up")
    one_machine(table, "num_nodes", notes)
    for name in ("secrets", "managed_secrets"):
        no_secrets(table, name, notes)
    for name in ("volumes", "volume_mounts"):
        if given(table, name):
            notes.refuse(
                table[name], "are disks that outlive the job", "name what the job reads under file_mounts"
            )
    for name in ("config", "experimental", "event_callback", "file_mounts_mapping", "api_server_access"):
        notes.passed(table, name, "it configures SkyPilot itself")
    for name in ("inputs", "outputs"):
        notes.passed(
            table,
            name,
            "SkyPilot uses it to estimate transfer; here everything new in the work folder comes back",
        )
    if not given(table, "run"):
        raise value.wrong("has no 'run'", "say what to run; a machine without a job is a rent")
    env = present(table["envs"]) if given(table, "envs") else ()
    mounts: list[Mount] = []
    if given(table, "workdir"):
        with notes.part():
            mounts.append(_workdir(table["workdir"], dict(env)))
    if given(table, "file_mounts"):
        for path, source in table["file_mounts"].table().items():
            with notes.part():
                mounts.append(_mount(path, source, dict(env), notes))
    resources: dict[str, int | str] = {}
    image = "python"
    if given(table, "resources"):
        with notes.part():
            resources, image = _resources(table["resources"], notes)
    where = table.get("resources", value)
    scripts = [table[name] for name in ("setup", "run") if given(table, name)]
    for script in scripts:
        notes.fetching(script)
    retries = _retries(table, notes)
    return Request(
        format="skypilot",
        name=name_of(table.get("name")),
        image=image,
        argv=shell(table["run"], BASH),
        setup=shell(table["setup"], BASH) if given(table, "setup") else (),
        env=notes.variables(scripts, "SKYPILOT_", env, _own(resources.get("gpus", 0))),
        mounts=tuple(mounts),
        resources=resources_of(where, **resources),
        wishes=Wishes(retries=retries),
        unhonoured=notes.all(),
    )


def _own(gpus: int | str) -> dict[str, str]:
    """What SkyPilot tells a task of one machine about itself."""
    found: dict[str, str] = {}
    for begin in ("SKYPILOT_", "SKYPILOT_SETUP_"):
        found |= {
            f"{begin}NODE_RANK": "0",
            f"{begin}NODE_IPS": "127.0.0.1",
            f"{begin}NUM_GPUS_PER_NODE": str(gpus),
        }
    return found | {"SKYPILOT_NUM_NODES": "1"}


def _workdir(value: Value, env: Mapping[str, str]) -> Mount:
    if value.is_table:
        raise value.wrong("is a git repository", "clone it here, and give its folder: jobs have no network")
    return Mount("", filled(value, value.text(), env), value.line)


def _mount(path: str, source: Value, env: Mapping[str, str], notes: Notes) -> Mount:
    if source.is_table or "://" in source.text():
        raise source.wrong(
            "is a bucket or a volume",
            "jobs have no network: fetch it here, and name the folder, so that its content is fixed",
        )
    path = filled(source, path, env)
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
    return Mount(path_of(source, tidy), filled(source, source.text(), env), source.line)


def _resources(value: Value, notes: Notes) -> tuple[dict[str, int | str], str]:
    table = known(value, RESOURCES, "SkyPilot's resources")
    for name in ("any_of", "ordered"):
        if given(table, name):
            notes.refuse(
                table[name], "lists alternatives", "keep one of them; the plan shows what each would cost"
            )
    if given(table, "ports"):
        notes.refuse(
            table["ports"],
            "open ports to a server",
            "a job here takes no connections; rent a cluster for that",
        )
    if given(table, "volumes"):
        notes.refuse(
            table["volumes"], "are disks that outlive the job", "name what the job reads under file_mounts"
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
        with notes.part():
            found |= _accelerators(table["accelerators"])
    image = "python"
    for name in ("image_id", "container_image"):
        if given(table, name):
            with notes.part():
                image = container(table[name], "docker:")
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


def _retries(table: dict[str, Value], notes: Notes) -> int:
    resources = table.get("resources")
    if resources is None or not resources.is_table:
        return 0
    recovery = resources.table().get("job_recovery")
    if recovery is None or not recovery.is_table:
        return 0
    inner = known(
        recovery, ("strategy", "max_restarts_on_errors", "recover_on_exit_codes"), "SkyPilot's job_recovery"
    )
    notes.passed(inner, "strategy", "a strategy of SkyPilot's controller; a lost provider is replaced")
    notes.passed(
        inner,
        "recover_on_exit_codes",
        "a program that fails would fail again: only a provider's failure is retried",
    )
    return inner["max_restarts_on_errors"].integer(0, 10) if given(inner, "max_restarts_on_errors") else 0
