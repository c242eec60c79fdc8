"""Job files of others, read as ours where they say the same thing; what can't be honoured is named, never dropped.

    SkyPilot   task YAML: `resources, num_nodes, workdir, envs, file_mounts, setup, run`
    dstack     `type: task`: `commands, env, files, image, resources, max_duration, max_price, retry`
    Akash      SDL: one service, its compute profile, its deployment

Three answers are possible for a field: it is honoured; it is *unhonoured* (`Request.unhonoured`: the job runs without, and
the plan says so); or the job would be another one without it, and that is an error. A field that none of these formats has is
an error too: most likely it is a slip.

Sources: skypilot `sky/utils/schemas.py`; dstack `core/models/configurations.py`, `profiles.py`, `resources.py`; Akash SDL
reference 2.0.
"""

import re
from collections.abc import Mapping

from clusterai.work.batch.core.jobfile import (
    duration,
    environment,
    given,
    job,
    known,
    milli,
    path_of,
    resources_of,
    shell,
    size,
)
from clusterai.work.batch.core.located import BadFile, Value, read
from clusterai.work.batch.core.request import Mount, Request, Unhonoured, Wishes

BASH = ("/bin/bash", "-c")
DOLLARS = (
    "prices there are in dollars, and this network has no rate for them; use --max-price or --max-hourly"
)


def parse(text: str) -> Request:
    """Any of the four formats, told apart by what only it has.

    Raises:
        BadFile: naming line, value, reason and cure.
    """
    value = read(text)
    table = value.table()
    if "services" in table and ("profiles" in table or "deployment" in table):
        return _akash(value)
    if "type" in table:
        return _dstack(value)
    if "num_nodes" in table or _looks_like_sky(table):
        return _skypilot(value)
    return job(value)


# --- SkyPilot ---

SKY = (
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
SKY_RESOURCES = (
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
_SKY_ONLY = frozenset(
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
_SKY_PASSED: Mapping[str, str] = {
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


def _looks_like_sky(table: dict[str, Value]) -> bool:
    resources = table.get("resources")
    if resources is not None and resources.is_table and _SKY_ONLY & resources.table().keys():
        return True
    mounts = table.get("file_mounts")
    if mounts is not None and mounts.is_table:
        return any(path.startswith(("/", "~")) for path in mounts.table())
    return "secrets" in table or "config" in table


def _skypilot(value: Value) -> Request:
    table = known(value, SKY, "a SkyPilot task")
    notes = _Notes()
    for name, why in (
        ("service", "is a server that stays up"),
        ("pool", "is a pool of workers that stays up"),
    ):
        if given(table, name):
            raise table[name].wrong(why, "a job here begins and ends; rent a cluster for what stays up")
    _one(table, "num_nodes")
    _no_secrets(table)
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
        mounts += [_sky_mount(path, source, notes) for path, source in table["file_mounts"].table().items()]
    resources: dict[str, int | str] = {}
    image = "python"
    if given(table, "resources"):
        resources, image = _sky_resources(table["resources"], notes)
    where = table.get("resources", value)
    return Request(
        format="skypilot",
        name=_name(table.get("name")),
        image=image,
        argv=shell(table["run"], BASH),
        setup=shell(table["setup"], BASH) if given(table, "setup") else (),
        env=_present(table["envs"]) if given(table, "envs") else (),
        mounts=tuple(mounts),
        resources=resources_of(where, **resources),
        wishes=Wishes(retries=_sky_retries(table)),
        unhonoured=notes.all(),
    )


def _sky_mount(path: str, source: Value, notes: "_Notes") -> Mount:
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


def _sky_resources(value: Value, notes: "_Notes") -> tuple[dict[str, int | str], str]:
    table = known(value, SKY_RESOURCES, "SkyPilot's resources")
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
    for name, why in _SKY_PASSED.items():
        notes.passed(table, name, why)
    if given(table, "job_recovery") and table["job_recovery"].is_text:
        notes.passed(table, "job_recovery", "a strategy of SkyPilot's controller; use `retries`")
    found: dict[str, int | str] = {}
    if given(table, "cpus"):
        found["cpu_milli"] = milli(_at_least(table["cpus"]))
    if given(table, "memory"):
        found["memory_bytes"] = size(_at_least(table["memory"]), "G")
    if given(table, "disk_size"):
        found["disk_bytes"] = size(table["disk_size"], "G")
    if given(table, "accelerators"):
        found |= _sky_accelerators(table["accelerators"])
    image = "python"
    if given(table, "image_id"):
        image = _container(table["image_id"], "docker:")
    return found, image


def _sky_accelerators(value: Value) -> dict[str, int | str]:
    if value.is_list or (value.is_table and len(value.table()) != 1):
        raise value.wrong("lists alternatives", "keep one of them; the plan shows what each would cost")
    if value.is_table:
        ((name, count),) = value.table().items()
        if ":" in name:
            name, _, number = name.partition(":")
            return {"gpu": name, "gpus": _count(value, number)}
        return {"gpu": name, "gpus": count.integer(1, 64) if not count.is_null else 1}
    name, _, number = value.text().partition(":")
    return {"gpu": name, "gpus": _count(value, number or "1")}


def _sky_retries(table: dict[str, Value]) -> int:
    resources = table.get("resources")
    if resources is None or not resources.is_table:
        return 0
    recovery = resources.table().get("job_recovery")
    if recovery is None or not recovery.is_table:
        return 0
    inner = recovery.table()
    return inner["max_restarts_on_errors"].integer(0, 10) if given(inner, "max_restarts_on_errors") else 0


# --- dstack ---

DSTACK = (
    "type",
    "name",
    "image",
    "entrypoint",
    "user",
    "privileged",
    "working_dir",
    "home_dir",
    "registry_auth",
    "python",
    "nvcc",
    "single_branch",
    "env",
    "shell",
    "resources",
    "priority",
    "volumes",
    "docker",
    "repos",
    "files",
    "setup",
    "ports",
    "commands",
    "nodes",
    "backends",
    "regions",
    "availability_zones",
    "instance_types",
    "reservation",
    "spot_policy",
    "retry",
    "retry_policy",
    "max_duration",
    "stop_duration",
    "max_price",
    "creation_policy",
    "idle_duration",
    "termination_policy",
    "termination_idle_time",
    "utilization_policy",
    "startup_order",
    "stop_criteria",
    "schedule",
    "fleets",
    "tags",
    "pool_name",
    "instance_name",
)
_DSTACK_PASSED: Mapping[str, str] = {
    "user": "a job is always the same user without rights",
    "home_dir": "the work folder is the home",
    "priority": "there is one queue per provider, first come first served",
    "backends": "the network is one cloud; providers are chosen by price and standing",
    "regions": "providers don't prove where they are",
    "availability_zones": "providers don't prove where they are",
    "instance_types": "machines here have no such names; resources count",
    "reservation": "nothing is reserved ahead here",
    "spot_policy": "there is one market, and nothing here is taken back while it runs",
    "stop_duration": "a cancelled job ends at once; its last checkpoint stays",
    "max_price": DOLLARS,
    "creation_policy": "there are no pools",
    "idle_duration": "a job's machine is given back when the job ends",
    "termination_policy": "a job's machine is given back when the job ends",
    "termination_idle_time": "a job's machine is given back when the job ends",
    "utilization_policy": "what a job uses isn't judged",
    "startup_order": "there is one node",
    "stop_criteria": "there is one node",
    "fleets": "there are no fleets",
    "tags": "nothing here carries tags",
    "pool_name": "there are no pools",
    "instance_name": "there are no pools",
    "single_branch": "no repository is cloned",
    "nvcc": "name an image that has what the job needs",
}
DSTACK_RESOURCES = ("cpu", "memory", "shm_size", "gpu", "disk")
DSTACK_GPU = ("vendor", "name", "count", "memory", "total_memory", "compute_capability")
VENDORS = frozenset(("nvidia", "amd", "google", "tpu", "intel", "tenstorrent"))


def _dstack(value: Value) -> Request:
    kind = value.table()["type"]
    if kind.text() != "task":
        raise kind.wrong(
            f"is {kind.text()!r}",
            "only dstack's tasks begin and end, as jobs do; rent a cluster for the others",
        )
    table = known(value, DSTACK, "a dstack task")
    notes = _Notes()
    _one(table, "nodes")
    for name, why, cure in (
        ("ports", "are for a server", "a job here takes no connections"),
        ("volumes", "are disks that outlive the job", "name what the job reads under files"),
        ("registry_auth", "is a secret", "use an image that anyone may read: auditors run it too"),
        ("schedule", "runs it again and again", "run it from cron"),
    ):
        if given(table, name):
            raise table[name].wrong(why, cure)
    for name in ("privileged", "docker"):
        if given(table, name) and table[name].flag():
            raise table[name].wrong(
                "gives the job rights over the machine", "no provider here does; leave it out"
            )
    for name, why in _DSTACK_PASSED.items():
        notes.passed(table, name, why)
    if not given(table, "commands"):
        raise value.wrong("has no 'commands'", "say what to run; an image's own command isn't taken over")
    if given(table, "entrypoint"):
        raise table["entrypoint"].wrong("replaces the shell that runs the commands", "put it into commands")
    image = _container(table["image"], "") if given(table, "image") else "python"
    if given(table, "python"):
        notes.add(table["python"].line, "python", "the base `python` has one version; the plan shows which")
    shell_named = table["shell"].text() if given(table, "shell") else "bash" if image == "python" else "sh"
    interpreter = shell_named if shell_named.startswith("/") else f"/bin/{shell_named}"
    script = " && ".join(table["commands"].texts())
    setup = " && ".join(table["setup"].texts()) if given(table, "setup") else ""
    mounts = [_dstack_mount(item) for item in table["files"].items()] if given(table, "files") else []
    if given(table, "repos"):
        mounts = [*(_dstack_repo(item) for item in table["repos"].items()), *mounts]
    if given(table, "working_dir"):
        notes.add(
            table["working_dir"].line,
            "working_dir",
            "a job starts in its work folder; begin the commands with cd",
        )
    resources: dict[str, int | str] = {}
    if given(table, "resources"):
        resources = _dstack_resources(table["resources"], notes)
    if given(table, "max_duration") and table["max_duration"].text() not in ("off", "false"):
        resources["time_s"] = duration(table["max_duration"])
    retries, wait = _dstack_retry(table, notes)
    return Request(
        format="dstack",
        name=_name(table.get("name")),
        image=image,
        argv=(interpreter, "-c", script),
        setup=(interpreter, "-c", setup) if setup else (),
        env=environment(table["env"]) if given(table, "env") else (),
        mounts=tuple(mounts),
        resources=resources_of(table.get("resources", value), **resources),
        wishes=Wishes(retries=retries, retry_until_placed=wait),
        unhonoured=notes.all(),
    )


def _dstack_mount(item: Value) -> Mount:
    if item.is_table:
        table = known(item, ("local_path", "path"), "a file of dstack")
        local, path = table["local_path"].text(), table["path"].text()
    else:
        local, colon, path = item.text().partition(":")
        path = path if colon else local
    for begin in ("~/", "./", "/"):
        path = path.removeprefix(begin)
    return Mount(path_of(item, path), local, item.line)


def _dstack_repo(item: Value) -> Mount:
    if item.is_text and not re.search(r"://|@", item.text()):
        local, _, path = item.text().partition(":")
        return Mount(path_of(item, path or "."), local, item.line)
    if item.is_table and given(item.table(), "local_path"):
        inner = item.table()
        return Mount(
            path_of(item, inner["path"].text() if given(inner, "path") else "."),
            inner["local_path"].text(),
            item.line,
        )
    raise item.wrong(
        "is a git repository elsewhere", "clone it here, and give its folder: jobs have no network"
    )


def _dstack_resources(value: Value, notes: "_Notes") -> dict[str, int | str]:
    table = known(value, DSTACK_RESOURCES, "dstack's resources")
    notes.passed(table, "shm_size", "shared memory is a quarter of the job's memory, at most 64 MiB")
    found: dict[str, int | str] = {}
    if given(table, "cpu"):
        text = table["cpu"].text()
        cpu = text.rpartition(":")[2]
        if ":" in text:
            notes.add(table["cpu"].line, "resources.cpu", "the processor's architecture isn't chosen")
        found["cpu_milli"] = milli(_lowest(table["cpu"], cpu))
    if given(table, "memory"):
        found["memory_bytes"] = size(_lowest(table["memory"], table["memory"].text()), "G")
    if given(table, "disk"):
        disk = table["disk"]
        if disk.is_table:
            disk = known(disk, ("size",), "a dstack disk")["size"]
        found["disk_bytes"] = size(_lowest(disk, disk.text()), "G")
    if given(table, "gpu"):
        found |= _dstack_gpu(table["gpu"], notes)
    return found


def _dstack_gpu(value: Value, notes: "_Notes") -> dict[str, int | str]:
    found: dict[str, int | str] = {"gpus": 1}
    if value.is_table:
        table = known(value, DSTACK_GPU, "a dstack GPU")
        for name in ("vendor", "memory", "total_memory", "compute_capability"):
            notes.passed(table, name, "GPUs are chosen by their model's name")
        if given(table, "name"):
            names = table["name"].texts()
            if len(names) != 1:
                raise table["name"].wrong("lists alternatives", "keep one of them")
            found["gpu"] = names[0]
        if given(table, "count"):
            found["gpus"] = _lowest(table["count"], table["count"].text()).integer(0, 64)
        return found if found["gpus"] else {"gpus": 0}
    for token in value.text().replace(" ", "").split(":"):
        if token.lower() in VENDORS:
            notes.add(value.line, "resources.gpu", f"{token}: GPUs are chosen by their model's name")
        elif token[:1].isalpha():
            if "," in token:
                raise value.wrong("lists alternatives", "keep one of them")
            found["gpu"] = token
        elif any(letter.isalpha() for letter in token):
            notes.add(value.line, "resources.gpu", f"{token}: GPUs are chosen by their model's name")
        else:
            found["gpus"] = _lowest(value, token).integer(0, 64)
    return found if found["gpus"] else {"gpus": 0}


def _dstack_retry(table: dict[str, Value], notes: "_Notes") -> tuple[int, bool]:
    notes.passed(table, "retry_policy", "use `retry`")
    if not given(table, "retry"):
        return 0, False
    retry = table["retry"]
    if retry.is_text:
        return (3, True) if retry.flag() else (0, False)
    inner = known(retry, ("on_events", "duration"), "dstack's retry")
    notes.passed(inner, "duration", "give the whole a --deadline")
    events = inner["on_events"].texts() if given(inner, "on_events") else []
    if "error" in events:
        notes.add(
            retry.line, "retry.on_events", "error: a program that fails would fail again: it is deterministic"
        )
    return (3 if "interruption" in events else 0), "no-capacity" in events


# --- Akash ---

AKASH_SERVICE = (
    "image",
    "command",
    "args",
    "env",
    "expose",
    "dependencies",
    "depends-on",
    "params",
    "credentials",
)


def _akash(value: Value) -> Request:
    table = known(
        value, ("version", "services", "profiles", "deployment", "endpoints", "include"), "an Akash SDL"
    )
    notes = _Notes()
    if "version" in table and table["version"].text() not in ("2.0", "2.1"):
        raise table["version"].wrong(f"is {table['version'].text()!r}", "versions 2.0 and 2.1 are read")
    for name in ("services", "profiles", "deployment"):
        if not given(table, name):
            raise value.wrong(f"has no '{name}'", "a whole SDL has services, profiles and deployment")
    notes.passed(table, "endpoints", "a job takes no connections")
    notes.passed(table, "include", "it isn't read")
    services = table["services"].table()
    if len(services) != 1:
        raise table["services"].wrong(
            f"has {len(services)} services", "a job is one program: keep one of them"
        )
    ((name, service),) = services.items()
    inner = known(service, AKASH_SERVICE, "an Akash service")
    if given(inner, "credentials"):
        raise inner["credentials"].wrong(
            "is a secret", "use an image that anyone may read: auditors run it too"
        )
    if given(inner, "params"):
        raise inner["params"].wrong(
            "mounts storage that outlives the job", "leave it out: jobs begin with their inputs"
        )
    notes.passed(
        inner, "expose", "a job takes no connections; only what it leaves in its work folder comes back"
    )
    for field in ("dependencies", "depends-on"):
        notes.passed(inner, field, "there is one service")
    if not given(inner, "image"):
        raise service.wrong("has no image", "name one by its digest")
    argv = (*_words(inner, "command"), *_words(inner, "args"))
    if not argv:
        raise service.wrong("has no command", "say what to run; an image's own command isn't taken over")
    profile, count = _akash_deployment(table["deployment"], name)
    if count != 1:
        raise table["deployment"].wrong(
            f"runs {count} of it", "a job is one program; use --replicas, or an array over inputs"
        )
    profiles = known(table["profiles"], ("compute", "placement"), "Akash's profiles")
    compute = profiles["compute"].table() if given(profiles, "compute") else {}
    if profile not in compute:
        raise table["profiles"].wrong(f"has no compute profile {profile!r}", "the deployment names it")
    if given(profiles, "placement"):
        for placement in profiles["placement"].table().values():
            _akash_placement(placement, notes)
    resources = known(compute[profile], ("resources",), "an Akash compute profile")["resources"]
    return Request(
        format="akash",
        name=_name(Value(service.line, "services", name)),
        image=_container(inner["image"], ""),
        argv=argv,
        env=environment(inner["env"]) if given(inner, "env") else (),
        resources=resources_of(resources, **_akash_resources(resources, notes)),
        unhonoured=notes.all(),
    )


def _akash_deployment(value: Value, service: str) -> tuple[str, int]:
    table = value.table()
    if service not in table:
        raise value.wrong(f"doesn't deploy {service!r}", "name the service here")
    placements = table[service].table()
    if len(placements) != 1:
        raise table[service].wrong("is placed in several groups", "keep one of them")
    ((_, placed),) = placements.items()
    inner = known(placed, ("profile", "count"), "an Akash deployment")
    if not given(inner, "profile"):
        raise placed.wrong("has no profile", "name a compute profile")
    return inner["profile"].text(), inner["count"].integer(0, 10_000) if given(inner, "count") else 1


def _akash_placement(value: Value, notes: "_Notes") -> None:
    table = known(value, ("attributes", "signedBy", "pricing"), "an Akash placement")
    notes.passed(table, "attributes", "providers are chosen by price and standing")
    notes.passed(table, "signedBy", "standing here comes from audits and stake")
    notes.passed(table, "pricing", "it is in Akash's units per block; use --max-price or --max-hourly")


def _akash_resources(value: Value, notes: "_Notes") -> dict[str, int | str]:
    table = known(value, ("cpu", "memory", "storage", "gpu"), "Akash's resources")
    found: dict[str, int | str] = {}
    if given(table, "cpu"):
        cpu = known(table["cpu"], ("units", "attributes"), "Akash's cpu")
        notes.passed(cpu, "attributes", "the processor's kind isn't chosen")
        if given(cpu, "units"):
            found["cpu_milli"] = milli(cpu["units"])
    if given(table, "memory"):
        memory = known(table["memory"], ("size", "attributes"), "Akash's memory")
        notes.passed(memory, "attributes", "memory isn't told apart")
        if given(memory, "size"):
            found["memory_bytes"] = size(memory["size"])
    if given(table, "storage"):
        found["disk_bytes"] = _akash_storage(table["storage"], notes)
    if given(table, "gpu"):
        found |= _akash_gpu(table["gpu"], notes)
    return found


def _akash_storage(value: Value, notes: "_Notes") -> int:
    total = 0
    for item in value.items() if value.is_list else [value]:
        storage = known(item, ("name", "size", "attributes"), "Akash's storage")
        if given(storage, "attributes"):
            attributes = storage["attributes"].table()
            if "persistent" in attributes and attributes["persistent"].flag():
                raise attributes["persistent"].wrong(
                    "outlives the job", "leave it out: outputs come back by content"
                )
            notes.passed(storage, "attributes", "disks aren't told apart here")
        if given(storage, "size"):
            total += size(storage["size"])
    return total


def _akash_gpu(value: Value, notes: "_Notes") -> dict[str, int | str]:
    table = known(value, ("units", "attributes"), "Akash's gpu")
    count = table["units"].integer(0, 64) if given(table, "units") else 0
    if not count:
        return {"gpus": 0}
    found: dict[str, int | str] = {"gpus": count}
    if given(table, "attributes"):
        vendors = known(table["attributes"], ("vendor",), "a GPU's attributes")
        for maker in vendors["vendor"].table().values() if given(vendors, "vendor") else ():
            models = [] if maker.is_null else maker.items()
            if len(models) > 1:
                raise maker.wrong("lists alternatives", "keep one of them")
            for model in models:
                inner = known(model, ("model", "ram", "interface"), "a GPU's model")
                if given(inner, "model"):
                    found["gpu"] = inner["model"].text()
                for name in ("ram", "interface"):
                    notes.passed(inner, name, "GPUs are chosen by their model's name")
    return found


# --- what they share ---


class _Notes:
    def __init__(self) -> None:
        self._found: list[Unhonoured] = []

    def add(self, line: int, what: str, why: str) -> None:
        self._found.append(Unhonoured(line, what, why))

    def passed(self, table: dict[str, Value], name: str, why: str) -> None:
        if given(table, name):
            self.add(table[name].line, table[name].name, why)

    def all(self) -> tuple[Unhonoured, ...]:
        return tuple(sorted(self._found, key=lambda it: it.line))


def _one(table: dict[str, Value], name: str) -> None:
    if given(table, name) and table[name].text() != "1":
        raise table[name].wrong(
            f"asks for {table[name].text()} machines",
            "a job is one program on one machine; rent a cluster for more",
        )


def _no_secrets(table: dict[str, Value]) -> None:
    if given(table, "secrets") and table["secrets"].table():
        raise table["secrets"].wrong(
            "would be read by gateway, provider and auditors", "a job's spec is public; leave secrets out"
        )


def _present(value: Value) -> tuple[tuple[str, str], ...]:
    """SkyPilot's empty variables are taken from the shell; here nothing is."""
    for name, item in value.table().items() if value.is_table else ():
        if item.is_null:
            raise item.wrong(
                f"{name} is to be given on the command line", "write its value here: the spec must be whole"
            )
    return environment(value)


def _at_least(value: Value) -> Value:
    """`4+` asks for four or more: what is promised is four."""
    return Value(value.line, value.name, value.text().rstrip("+x "), value.quoted)


def _lowest(value: Value, text: str) -> Value:
    """The low end of dstack's `2..8`, which is what is promised."""
    low, dots, high = text.replace(" ", "").partition("..")
    return Value(value.line, value.name, (low or high) if dots else text, value.quoted)


def _count(value: Value, text: str) -> int:
    return Value(value.line, value.name, text).integer(1, 64)


def _words(table: dict[str, Value], name: str) -> tuple[str, ...]:
    return tuple(table[name].texts()) if given(table, name) else ()


def _container(value: Value, begin: str) -> str:
    text = value.text().removeprefix(begin)
    if not re.fullmatch(r"[a-z0-9][a-z0-9._/:-]*@sha256:[0-9a-f]{64}", text):
        raise value.wrong(
            f"is {text[:80]!r}, which can change under its name",
            "name the content: NAME@sha256:… as `docker images --digests` or `skopeo inspect` show it",
        )
    return text


def _name(value: Value | None) -> str:
    """A name as ours may be, out of any."""
    if value is None or value.is_null:
        return ""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", value.text()).strip("-._")[:64]


__all__ = ["BadFile", "parse"]
