"""dstack: `type: task`. Source: dstack `core/models/configurations.py`, `profiles.py`, `resources.py`."""

import re
from collections.abc import Mapping

from clusterai.work.batch.core.imports.shared import (
    DOLLARS,
    Notes,
    container,
    lowest,
    name_of,
    needed,
    one_machine,
)
from clusterai.work.batch.core.jobfile import (
    duration,
    environment,
    given,
    known,
    milli,
    path_of,
    resources_of,
    size,
)
from clusterai.work.batch.core.located import Value
from clusterai.work.batch.core.request import Mount, Request, Wishes

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
    "instances",
    "backend_options",
    "groups",
    "dstack",
    "probes",
)
_SERVICE = ("port", "gateway", "strip_prefix", "model", "https", "auth", "scaling", "rate_limits", "replicas")
_DEV = ("ide", "version", "init", "inactivity_duration")
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
    "instances": "machines belong to many people; they are chosen by price and standing",
    "backend_options": "the network is one cloud; providers are chosen by price and standing",
    "dstack": "there is no dstack server here, and jobs have no network",
    "probes": "nobody connects to a job, so nobody asks whether it is ready; its exit code says how it went",
    "single_branch": "no repository is cloned",
    "nvcc": "name an image that has what the job needs",
}
DSTACK_RESOURCES = ("cpu", "memory", "shm_size", "gpu", "disk")
DSTACK_GPU = ("vendor", "name", "count", "memory", "total_memory", "compute_capability")
VENDORS = frozenset(("nvidia", "amd", "google", "tpu", "intel", "tenstorrent"))


_OTHER = "only dstack's tasks begin and end, as jobs do"
_OTHERS: Mapping[str, str] = {
    "service": f"{_OTHER}; `clusterai model add` serves a model from a node, and `clusterai rent` keeps machines",
    "dev-environment": f"{_OTHER}; `clusterai rent` lends machines, with a shell and a notebook",
    "fleet": f"{_OTHER}; `clusterai rent --nodes 4` lends several machines as one cluster",
}


def dstack(value: Value) -> Request:
    kind = value.table()["type"]
    if kind.text() != "task":
        raise kind.wrong(f"is {kind.text()!r}", _OTHERS.get(kind.text(), _OTHER))
    notes = Notes()
    with notes.whole():
        return _task(value, notes)


def _task(value: Value, notes: Notes) -> Request:
    table = known(value, (*DSTACK, *_SERVICE, *_DEV), "a dstack task")
    for name in (*_SERVICE, *_DEV):
        if given(table, name):
            whose = "service" if name in _SERVICE else "dev-environment"
            notes.refuse(
                table[name], f"belongs to a dstack {whose}", "leave it out: nobody connects to a job"
            )
    if given(table, "groups"):
        notes.refuse(
            table["groups"],
            "asks for several groups of machines",
            "a job is one program on one machine; rent a cluster for more",
        )
    one_machine(table, "nodes", notes)
    for name, why, cure in (
        ("ports", "are for a server", "a job here takes no connections"),
        ("volumes", "are disks that outlive the job", "name what the job reads under files"),
        ("registry_auth", "is a secret", "use an image that anyone may read: auditors run it too"),
        ("schedule", "runs it again and again", "run it from cron"),
    ):
        if given(table, name):
            notes.refuse(table[name], why, cure)
    for name in ("privileged", "docker"):
        if given(table, name) and table[name].flag():
            notes.refuse(
                table[name], "gives the job rights over the machine", "no provider here does; leave it out"
            )
    for name, why in _DSTACK_PASSED.items():
        notes.passed(table, name, why)
    if not given(table, "commands"):
        raise value.wrong("has no 'commands'", "say what to run; an image's own command isn't taken over")
    if given(table, "entrypoint"):
        notes.refuse(table["entrypoint"], "replaces the shell that runs the commands", "put it into commands")
    image = "python"
    if given(table, "image"):
        with notes.part():
            image = container(table["image"], "")
    if given(table, "python"):
        notes.add(
            table["python"].line,
            "python",
            "the base `python` has the version that its providers have; name an image for another",
        )
    shell_named = table["shell"].text() if given(table, "shell") else "bash" if image == "python" else "sh"
    interpreter = shell_named if shell_named.startswith("/") else f"/bin/{shell_named}"
    scripts = [table[name] for name in ("setup", "commands") if given(table, name)]
    for script in scripts:
        notes.fetching(script)
    mounts: list[Mount] = []
    for name, mount in (("repos", _repo), ("files", _mount)):
        for item in table[name].items() if given(table, name) else ():
            with notes.part():
                mounts.append(mount(item))
    if given(table, "working_dir"):
        notes.add(
            table["working_dir"].line,
            "working_dir",
            "a job starts in its work folder; begin the commands with cd",
        )
    resources: dict[str, int | str] = {}
    if given(table, "resources"):
        with notes.part():
            resources = _resources(table["resources"], notes)
    if given(table, "max_duration") and table["max_duration"].text() not in ("off", "false"):
        resources["time_s"] = duration(table["max_duration"])
    retries, wait = _retry(table, notes)
    name = name_of(table.get("name"))
    env = environment(table["env"]) if given(table, "env") else ()
    return Request(
        format="dstack",
        name=name,
        image=image,
        argv=(interpreter, "-c", _chained(table["commands"])),
        setup=(interpreter, "-c", _chained(table["setup"])) if given(table, "setup") else (),
        env=notes.variables(scripts, "DSTACK_", env, _own(name, resources.get("gpus", 0))),
        mounts=tuple(mounts),
        resources=resources_of(table.get("resources", value), **resources),
        wishes=Wishes(retries=retries, retry_until_placed=wait),
        unhonoured=notes.all(),
    )


def _chained(commands: Value) -> str:
    """One after the other until one fails, as dstack does it; what ends in `&` goes on beside the next."""
    tidy = [text.strip() for text in commands.texts()]
    return " && ".join(f"{{ {text} }}" if text.endswith("&") else text for text in tidy if text)


def _own(name: str, gpus: int | str) -> dict[str, str]:
    """What dstack tells a task of one machine about itself."""
    found = {
        "DSTACK_NODE_RANK": "0",
        "DSTACK_NODES_NUM": "1",
        "DSTACK_NODES_IPS": "127.0.0.1",
        "DSTACK_MASTER_NODE_IP": "127.0.0.1",
        "DSTACK_GPUS_NUM": str(gpus),
        "DSTACK_GPUS_PER_NODE": str(gpus),
    }
    return found | ({"DSTACK_RUN_NAME": name} if name else {})


def _mount(item: Value) -> Mount:
    if item.is_table:
        table = known(item, ("local_path", "path"), "a file of dstack")
        local, path = (needed(item, table, name).text() for name in ("local_path", "path"))
    else:
        local, colon, path = item.text().partition(":")
        path = path if colon else local
    for begin in ("~/", "./", "/"):
        path = path.removeprefix(begin)
    return Mount(path_of(item, path), local, item.line)


def _repo(item: Value) -> Mount:
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


def _resources(value: Value, notes: Notes) -> dict[str, int | str]:
    table = known(value, DSTACK_RESOURCES, "dstack's resources")
    notes.passed(table, "shm_size", "shared memory is a quarter of the job's memory, at most 64 MiB")
    found: dict[str, int | str] = {}
    if given(table, "cpu"):
        text = table["cpu"].text()
        cpu = text.rpartition(":")[2]
        if ":" in text:
            notes.add(table["cpu"].line, "resources.cpu", "the processor's architecture isn't chosen")
        found["cpu_milli"] = milli(lowest(table["cpu"], cpu))
    if given(table, "memory"):
        found["memory_bytes"] = size(lowest(table["memory"], table["memory"].text()), "G")
    if given(table, "disk"):
        disk = table["disk"]
        if disk.is_table:
            disk = needed(disk, known(disk, ("size",), "a dstack disk"), "size")
        found["disk_bytes"] = size(lowest(disk, disk.text()), "G")
    if given(table, "gpu"):
        found |= _gpu(table["gpu"], notes)
    return found


def _gpu(value: Value, notes: Notes) -> dict[str, int | str]:
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
            found["gpus"] = lowest(table["count"], table["count"].text()).integer(0, 64)
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
            found["gpus"] = lowest(value, token).integer(0, 64)
    return found if found["gpus"] else {"gpus": 0}


def _retry(table: dict[str, Value], notes: Notes) -> tuple[int, bool]:
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
        notes.add(retry.line, "retry.on_events", "error: a program that fails would fail again")
    return (3 if "interruption" in events else 0), "no-capacity" in events
