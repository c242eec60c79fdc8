"""The walls around a native task, written as arguments for bubblewrap.

What the tenant sees is exactly what is listed here: a read-only root, its inputs, a volume of its own that is gone when
the last descriptor to it is closed, and namespaces in which it is alone. Nothing of the host is hidden; it was never
put in.
"""

import msgspec

from clusterai.sandbox.core.spec import KiB, MiB, Task

VOLUME = "/job"
TENANT = 1000
MASKED = (
    "cmdline",
    "keys",
    "key-users",
    "kcore",
    "kallsyms",
    "timer_list",
    "sched_debug",
    "modules",
    "latency_stats",
)
"""Of /proc: the host's own affairs."""


OURS = ("proc", "dev", "sys", "run", "tmp", "job")
"""Folders of the root that we make ourselves."""


class Bind(msgspec.Struct, frozen=True):
    """A part of the host that is shown, read-only; of a root's `devices`, a device file that may be used."""

    source: str
    dest: str


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """A read-only file system that a node offers under a name."""

    name: str
    binds: tuple[Bind, ...]
    links: tuple[tuple[str, str], ...] = ()
    """(target, place) of symbolic links such as /bin → usr/bin."""
    path: str = "/usr/local/bin:/usr/bin:/bin"
    env: dict[str, str] = {}
    """What an image says of its own environment."""
    names: bool = True
    """Whether /etc can take our /etc/passwd: a root of its own without that file can't, being read-only."""
    devices: tuple[Bind, ...] = ()
    """Of the host's /dev, beside the few that everybody gets."""
    emptied: tuple[str, ...] = ()
    """Folders of /proc that tell of the host's other devices; `regained` is what is shown in them all the same."""
    regained: tuple[Bind, ...] = ()


def environment(task: Task, root: Root) -> dict[str, str]:
    """All that the program finds in its environment: nothing of the host's."""
    return {
        "HOME": VOLUME,
        "TMPDIR": f"{VOLUME}/tmp",  # noqa: S108
        "PATH": root.path,
        "LANG": "C.UTF-8",
        "CLUSTERAI_IN": f"{VOLUME}/in",
        "CLUSTERAI_OUT": f"{VOLUME}/out",
        "CLUSTERAI_SEED": str(task.seed),
        # One number of threads, or a library starts one for each of the host's cores.
        "OMP_NUM_THREADS": str(max(1, task.limits.cpu_milli // 1000)),
        **root.env,
        **task.env,
    }


def options(
    task: Task,
    root: Root,
    inputs: str,
    passwd_fd: int,
    ready: str,
    masked: tuple[str, ...],
    shared_bytes: int | None = None,
    disk: str | None = None,
) -> list[str]:
    """bubblewrap's options, to be handed over by `--args` so that no other user of the host reads them.

    Args:
        inputs: the host's folder that holds the task's inputs and nothing else.
        passwd_fd: an open file with one line of /etc/passwd.
        ready: a name nobody can guess. When this folder is there, the walls are up.
        masked: those of `MASKED` that this host's /proc has.
        shared_bytes: of /dev/shm, where a tenant needs more than a job does: it counts as the tenant's memory.
        disk: a folder that is to be the volume, the tenant's own; memory by default.
    """
    limits = task.limits
    made = ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]
    if not task.network:
        made.append("--unshare-net")
    made += [
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
        "--hostname",
        "job",
    ]
    made += ["--uid", str(TENANT), "--gid", str(TENANT), "--clearenv"]
    for name, value in sorted(environment(task, root).items()):
        made += ["--setenv", name, value]
    # /tmp is the volume's own; what of the root lies below it (a checkout there, say) is shown in the volume.
    below_tmp = [bind for bind in root.binds if bind.dest.startswith("/tmp/")]  # noqa: S108
    for bind in root.binds:
        if bind not in below_tmp:
            made += ["--ro-bind", bind.source, bind.dest]
    for target, place in root.links:
        made += ["--symlink", target, place]
    made += ["--proc", "/proc", "--dev", "/dev"]
    for device in root.devices:
        made += ["--dev-bind", device.source, device.dest]
    for name in masked:
        made += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    for place in root.emptied:
        made += ["--tmpfs", place]
        for bind in root.regained:
            if bind.dest.startswith(f"{place}/"):
                made += ["--ro-bind", bind.source, bind.dest]
        made += ["--remount-ro", place]
    shared = shared_bytes or max(64 * KiB, min(limits.memory_bytes // 4, 64 * MiB))
    made += ["--perms", "1777", "--size", str(shared), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]  # noqa: S108
    if disk is None:
        made += ["--perms", "0755", "--size", str(limits.disk_bytes), "--tmpfs", VOLUME]
    else:
        made += ["--bind", disk, VOLUME]
    made += ["--dir", f"{VOLUME}/out", "--dir", f"{VOLUME}/tmp", "--dir", f"{VOLUME}/in"]  # noqa: S108
    made += ["--ro-bind", inputs, f"{VOLUME}/in"]
    made += ["--symlink", f"{VOLUME}/tmp", "/tmp"]  # noqa: S108
    for bind in below_tmp:
        made += ["--ro-bind", bind.source, f"{VOLUME}{bind.dest}"]
    if root.names:
        made += ["--ro-bind-data", str(passwd_fd), "/etc/passwd"]
    # The name service's files only where the tenant bought a network.
    if task.network and not any(bind.dest == "/etc" for bind in root.binds):
        for file in ("resolv.conf", "hosts", "nsswitch.conf", "ssl", "ca-certificates"):
            made += ["--ro-bind-try", f"/etc/{file}", f"/etc/{file}"]
    made += ["--chdir", VOLUME, "--dir", f"/run/{ready}", "--remount-ro", "/"]
    return made


PASSWD = f"tenant:x:{TENANT}:{TENANT}::{VOLUME}:/bin/sh\n".encode()

LAUNCH = """
set -e
for group in $1; do echo $$ > "$group/cgroup.procs"; done
[ -z "$2" ] || chown "$2" "$3"
shift 3
while [ "$1" != -- ]; do
    mount --bind -o ro "$1" "$2"
    shift 2
done
shift
exec "$@"
"""
"""Run by sh, in a mount namespace of its own where it stages: into the control groups first, then the tenant's user is given
its disk where it has one, and what that user can't reach (a folder under /root, say) is made reachable, for it alone; then becomes bubblewrap, in the same process."""
