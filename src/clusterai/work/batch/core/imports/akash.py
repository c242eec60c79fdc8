"""Akash: an SDL with one service, its compute profile, its deployment. Source: Akash SDL reference 2.0."""

from clusterai.work.batch.core.imports.shared import Notes, container, name_of, needed, words
from clusterai.work.batch.core.jobfile import environment, given, known, milli, resources_of, size
from clusterai.work.batch.core.located import Value
from clusterai.work.batch.core.request import Request

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


def akash(value: Value) -> Request:
    notes = Notes()
    with notes.whole():
        return _deployed(value, notes)


def _deployed(value: Value, notes: Notes) -> Request:
    table = known(
        value, ("version", "services", "profiles", "deployment", "endpoints", "include"), "an Akash SDL"
    )
    if "version" in table and table["version"].text() not in ("2.0", "2.1"):
        notes.refuse(table["version"], f"is {table['version'].text()!r}", "versions 2.0 and 2.1 are read")
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
        notes.refuse(
            inner["credentials"], "is a secret", "use an image that anyone may read: auditors run it too"
        )
    if given(inner, "params"):
        with notes.part():
            _params(inner["params"], notes)
    notes.passed(
        inner, "expose", "a job takes no connections; only what it leaves in its work folder comes back"
    )
    for field in ("dependencies", "depends-on"):
        notes.passed(inner, field, "there is one service")
    if not given(inner, "image"):
        raise service.wrong("has no image", "name one by its digest")
    argv = (*words(inner, "command"), *words(inner, "args"))
    for part in ("command", "args"):
        if given(inner, part):
            notes.fetching(inner[part])
    if not argv:
        raise service.wrong("has no command", "say what to run; an image's own command isn't taken over")
    profile, count = _deployment(table["deployment"], name)
    if count != 1:
        notes.refuse(
            table["deployment"],
            f"runs {count} of it",
            "a job is one program; use --replicas, or an array over inputs",
        )
    profiles = known(table["profiles"], ("compute", "placement"), "Akash's profiles")
    compute = profiles["compute"].table() if given(profiles, "compute") else {}
    if profile not in compute:
        raise table["profiles"].wrong(f"has no compute profile {profile!r}", "the deployment names it")
    if given(profiles, "placement"):
        for placement in profiles["placement"].table().values():
            _placement(placement, notes)
    resources = needed(
        compute[profile], known(compute[profile], ("resources",), "an Akash compute profile"), "resources"
    )
    image, wanted = "", dict[str, int | str]()
    with notes.part():
        image = container(inner["image"], "")
    with notes.part():
        wanted = _resources(resources, notes)
    return Request(
        format="akash",
        name=name_of(Value(service.line, "services", name)),
        image=image,
        argv=argv,
        env=environment(inner["env"]) if given(inner, "env") else (),
        resources=resources_of(resources, **wanted),
        unhonoured=notes.all(),
    )


def _params(value: Value, notes: Notes) -> None:
    """Where the service finds its disks: a job has its work folder, /tmp and /dev/shm."""
    table = known(value, ("storage",), "an Akash service's params")
    for name, storage in table["storage"].table().items() if given(table, "storage") else ():
        inner = known(storage, ("mount", "readOnly"), "a mount of Akash's")
        place = inner["mount"].text() if given(inner, "mount") else ""
        if place != "/dev/shm":  # noqa: S108  a name in their file, not one of ours
            raise storage.wrong(
                f"mounts a disk at {place or 'no place'}", "write to the work folder, where the job starts"
            )
        notes.add(
            storage.line, f"params.storage.{name}", "shared memory is a quarter of the memory, at most 64 MiB"
        )


def _deployment(value: Value, service: str) -> tuple[str, int]:
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


def _placement(value: Value, notes: Notes) -> None:
    table = known(value, ("attributes", "signedBy", "pricing"), "an Akash placement")
    notes.passed(table, "attributes", "providers are chosen by price and standing")
    notes.passed(table, "signedBy", "standing here comes from audits and stake")
    notes.passed(table, "pricing", "it is in Akash's units per block; use --max-price or --max-hourly")


def _resources(value: Value, notes: Notes) -> dict[str, int | str]:
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
        found["disk_bytes"] = _storage(table["storage"], notes)
    if given(table, "gpu"):
        found |= _gpu(table["gpu"], notes)
    return found


def _storage(value: Value, notes: Notes) -> int:
    total = 0
    for item in value.items() if value.is_list else [value]:
        storage = known(item, ("name", "size", "attributes"), "Akash's storage")
        in_memory = False
        if given(storage, "attributes"):
            attributes = storage["attributes"].table()
            if "persistent" in attributes and attributes["persistent"].flag():
                raise attributes["persistent"].wrong(
                    "outlives the job", "leave it out: outputs come back by content"
                )
            in_memory = "class" in attributes and attributes["class"].text() == "ram"
            if not in_memory:
                notes.passed(storage, "attributes", "disks aren't told apart here")
        if given(storage, "size") and not in_memory:
            total += size(storage["size"])
    return total


def _gpu(value: Value, notes: Notes) -> dict[str, int | str]:
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
                if given(inner, "model") and inner["model"].text() != "*":
                    found["gpu"] = inner["model"].text()
                for name in ("ram", "interface"):
                    notes.passed(inner, name, "GPUs are chosen by their model's name")
    return found
