"""Rows of the doctor about the machine itself: system, GPU, disk, kernel, container engine, and the way to a gateway.

What is tried is bounded: 16 MiB and twenty small commits on the disk, 4 MB and two seconds over the network. Nothing stays.
"""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

import httpx
import msgspec

from clusterai.node.adapters import nvidia
from clusterai.sandbox import ControlGroups, NoControlGroups, obstacle
from clusterai.work.cluster.adapters import cards

WRITE_BYTES = 16 * 1024**2
WRITE_MOST_S = 5.0
COMMITS = 20
LEAST_DISK_BYTES = 1_000_000_000
SLOW_BYTES_S = 20e6
SLOW_COMMIT_S = 0.05
"""Twenty receipts a second, each durable before it is sent."""
FETCH_BYTES = 4_000_000
FETCH_MOST_S = 2.0
SLOW_LINK_BYTES_S = 125_000.0
MOST_OFFSET_S = 5.0
ASK_S = 5.0
STATUS = Path("/proc/self/status")
NET_ADMIN = 12
"""The capability's number."""

UNSUPPORTED = {
    "Darwin": "jobs and rented clusters need Linux's namespaces: this node answers requests only",
    "Windows": "jobs and rented clusters need Linux's namespaces, `clusterai node join` and its like need Unix, and keys' files"
    " aren't kept from other users by their permissions: a daemon that is started by hand answers requests",
}
"""What doesn't work where, to be said before anything is tried."""


class Row(msgspec.Struct, frozen=True):
    """`state`: green is right, yellow works with a limit, red doesn't work until it is cured."""

    name: str
    state: Literal["green", "yellow", "red"]
    found: str
    cure: str = ""


def system() -> Row:
    """Which one this is, and what of the program doesn't work there."""
    name = platform.system()
    found = f"{name} {platform.release()}, {platform.machine()}"
    if (lacks := UNSUPPORTED.get(name)) is not None:
        return Row(
            "system",
            "yellow",
            f"{found}: {lacks}",
            "run it in a Linux machine or container, WSL 2 on Windows",
        )
    return Row("system", "green", found)


def gpu() -> Row:
    try:
        found = nvidia.gpus()
    except nvidia.NoDriver as error:
        return Row(
            "gpu", "yellow", f"an NVIDIA GPU whose driver doesn't answer: {error}", _driver_cure(str(error))
        )
    if not found and Path("/dev/dri/renderD128").exists():
        return Row("gpu", "green", "one that OpenVINO may know: this version answers from the CPU")
    if not found:
        return Row("gpu", "green", "no GPU: answers come from the CPU")
    told = ", ".join(f"{it.name} with {it.memory_bytes / 1024**3:.0f} GiB" for it in found)
    return Row(
        "gpu",
        "yellow",
        f"{told}, driver {found[0].driver}",
        "it can be rented out; answers come from the CPU in this version",
    )


def _driver_cure(why: str) -> str:
    if "mismatch" in why.lower():
        return "reboot: the kernel still runs the module of the driver before"
    if "aren't installed" in why:
        return "apt-get install nvidia-utils-570, of the same version as /proc/driver/nvidia/version says"
    return "nvidia-smi says more; apt-get install --reinstall nvidia-driver-570, then reboot"


def disk(folder: Path) -> list[Row]:
    """Room and speed where the node's data lies, or will."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.1f} GB free at {place}"
    if free < LEAST_DISK_BYTES:
        return [Row("disk", "red", found, "free 1 GB there, or set `data` to another disk")]
    rows = [Row("disk", "green", found)]
    try:
        written_s, commit_s = _written(place)
    except OSError as error:
        cure = f"chown it to the user that the node runs as: chown -R $(id -u) {place}"
        return [*rows, Row("disk speed", "yellow", f"{place} can't be written: {error.strerror}", cure)]
    said = f"{WRITE_BYTES / written_s / 1e6:.0f} MB/s written, {1000 * commit_s:.1f} ms a commit"
    if commit_s > SLOW_COMMIT_S:
        cure = 'set `data` to an SSD, or `survives = "process"` if a power cut may cost what is owed'
        return [*rows, Row("disk speed", "yellow", said, cure)]
    if WRITE_BYTES / written_s < SLOW_BYTES_S:
        return [
            *rows,
            Row("disk speed", "yellow", said, "set `data` to a quicker disk: jobs' volumes lie there"),
        ]
    return [*rows, Row("disk speed", "green", said)]


def _written(place: Path) -> tuple[float, float]:
    """Seconds for `WRITE_BYTES`, synced, and for one small commit."""
    piece = os.urandom(1024**2)
    with TemporaryFile(dir=place) as file:
        began_s = time.monotonic()
        written = 0
        while written < WRITE_BYTES and time.monotonic() - began_s < WRITE_MOST_S:
            written += file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        whole_s = (time.monotonic() - began_s) * WRITE_BYTES / written
        began_s, commits = time.monotonic(), 0
        while commits < COMMITS and time.monotonic() - began_s < WRITE_MOST_S:
            file.write(piece[:4096])
            file.flush()
            os.fsync(file.fileno())
            commits += 1
        return whole_s, (time.monotonic() - began_s) / commits


def kernel(rents: bool) -> list[Row]:
    """What of the kernel jobs and rented clusters need. Red only for who rents out: nobody else needs a mesh."""
    if platform.system() != "Linux":
        return []
    rows = [_namespaces(), _engine(), _mesh(rents), *([_rented_disk()] if rents else [])]
    return [*rows, *rented_cards()]


def rentable(ray: Path) -> list[Row]:
    """What a machine that is rented out needs besides what jobs need.

    Args:
        ray: Ray's environment.
    """
    if platform.system() != "Linux":
        return [Row("rentals", "red", "rented clusters need Linux", UNSUPPORTED.get(platform.system(), ""))]
    python, cure = ray / "bin" / "python", "make install-peers, or name another in `rentals.ray`"
    if python.exists():
        rows = [Row("rentals: Ray", "green", str(ray))]
    else:
        rows = [Row("rentals: Ray", "red", f"there is no {python}", cure)]
    if _may_make_interfaces(STATUS):
        return [*rows, Row("rentals: rights", "green", "this user may make network interfaces")]
    cure = "run the node as root (in a container: --cap-add NET_ADMIN)"
    return [*rows, Row("rentals: rights", "red", "this user may not make network interfaces", cure)]


def counted() -> Row:
    """Whether a rented machine's walls would hold. Where control groups have version 2, who asks steps into a leaf of its own."""
    name = "rentals: control groups"
    try:
        return Row(name, "green", f"version {ControlGroups().version}")
    except NoControlGroups as error:
        why, _, cure = str(error).partition(": ")
        return Row(name, "red", why, cure)


def unrentable(ray: Path, *more: Row) -> Row | None:
    """What keeps this machine from being rented out, if anything does."""
    found = rentable(ray)
    rows = [*found, _mesh(rents=True), *more] if platform.system() == "Linux" else found
    return next((row for row in rows if row.state == "red"), None)


def _may_make_interfaces(status: Path) -> bool:
    """CAP_NET_ADMIN."""
    lines = status.read_text().splitlines()
    return bool(int(next(it for it in lines if it.startswith("CapEff:")).split()[1], 16) >> NET_ADMIN & 1)


def rented_cards(specs: Sequence[Path] = cards.CDI) -> list[Row]:
    """Whether NVIDIA's cards can be handed to a rented cluster: nothing where there are none."""
    name = "gpu in rentals"
    try:
        found = nvidia.gpus()
    except nvidia.NoDriver:
        return []  # The row `gpu` tells it, with its cure.
    if not found:
        return []
    try:
        spec = cards.spec(specs)
        everything = cards.Cards((), len(found), specs)
        why = everything.why_not(busy=False)
    except cards.NoCards as error:
        return [Row(name, "yellow", error.why[:300], cards.CURE_CDI)]
    if why:
        return [Row(name, "yellow", why[:300], _after_colon(why))]
    if spec is None:
        cure = f"works by the system's own libraries; NVIDIA's list is surer: {cards.CURE_CDI} (package nvidia-container-toolkit-base)"
        return [Row(name, "yellow", "no CDI specification in /etc/cdi or /var/run/cdi", cure)]
    return [
        Row(
            name,
            "green",
            f"{len(found)} whole, free, and in the CDI specification",
        )
    ]


def _after_colon(why: str) -> str:
    return why.rpartition(": ")[2][:200]


def _namespaces() -> Row:
    name = "user namespaces"
    try:
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "true"],
            capture_output=True,
            text=True,
            timeout=ASK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Row(name, "yellow", f"not tried: {error}", "apt-get install util-linux")
    if done.returncode == 0:
        return Row(name, "green", "this user may make them")
    for knob, cure in (
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("kernel/unprivileged_userns_clone", "sysctl kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "sysctl user.max_user_namespaces=10000"),
    ):
        if _knob(knob) == ("1" if "apparmor" in knob else "0"):
            return Row(name, "yellow", done.stderr.strip()[:200], cure)
    cure = "in a container: --security-opt seccomp=unconfined, or run the node on the host"
    return Row(name, "yellow", done.stderr.strip()[:200], cure)


def _knob(name: str) -> str | None:
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except OSError:
        return None


def _engine() -> Row:
    for program in ("docker", "podman", "nerdctl"):
        if (path := shutil.which(program)) is None:
            continue
        try:
            done = subprocess.run(
                [path, "--version"], capture_output=True, text=True, timeout=ASK_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        return Row("container engine", "green", done.stdout.strip()[:100] or program)
    return Row("container engine", "green", "none, and none is needed: images run in the node's own sandbox")


def _mesh(rents: bool) -> Row:
    from clusterai.mesh import KERNEL  # Linux alone has what it speaks to

    bad: Literal["yellow", "red"] = "red" if rents else "yellow"
    if KERNEL.has():
        return Row("mesh", "green", "the kernel's own WireGuard")
    if shutil.which("wireguard-go") is None:
        return Row(
            "mesh",
            bad,
            "wireguard-go isn't installed: rented clusters have no private network",
            "apt-get install wireguard-go",
        )
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        cure = "modprobe tun && chmod 666 /dev/net/tun (in a container: --device /dev/net/tun --cap-add NET_ADMIN)"
        return Row("mesh", bad, "/dev/net/tun can't be opened by this user", cure)
    return Row("mesh", "green", "wireguard-go and /dev/net/tun")


def _rented_disk() -> Row:
    """What a renter's volume is here; without a disk it is memory, and a machine lends little of that."""
    name, missing = "rented disk", obstacle()
    if missing is not None:
        return Row(name, "yellow", f"volumes of rentals are memory, since {missing.why}", missing.cure)
    return Row(name, "green", "encrypted under a key that is in memory alone, and dies with the rental")


def way(url: str) -> list[Row]:
    """The way to a gateway's API: bandwidth, by a transfer that ends after 4 MB or two seconds, and its clock beside ours."""
    name = "bandwidth"
    try:
        with httpx.Client(base_url=url.rstrip("/").removesuffix("/v1"), timeout=ASK_S) as client:
            asked_s = time.time()
            with client.stream("GET", "/healthz") as first:
                offset = _offset(first.headers.get("date"), asked_s, time.time())
            began_s, got = time.monotonic(), 0
            while got < FETCH_BYTES and time.monotonic() - began_s < FETCH_MOST_S:
                if not (more := _fetched(client, FETCH_BYTES - got, began_s + FETCH_MOST_S)):
                    break
                got += more
            rate = got / max(1e-6, time.monotonic() - began_s)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return [
            Row(name, "yellow", f"{url}: {error}", "is it running, and does a firewall let this machine out?")
        ]
    said = f"at least {8 * rate / 1e6:.1f} Mbit/s from {url}, {got / 1e6:.1f} MB fetched"
    if rate < SLOW_LINK_BYTES_S:
        rows = [
            Row(name, "yellow", said, "jobs' inputs come this way: lend to jobs by a better line, or not")
        ]
    else:
        rows = [Row(name, "green", said)]
    return [*rows, *([] if offset is None else [_clock(offset)])]


def _fetched(client: httpx.Client, most: int, until_s: float) -> int:
    """Bytes of one answer, raw: whoever answers with more than is asked for, or drips, is left in the middle of it."""
    got = 0
    with client.stream("GET", "/openapi.json", headers={"accept-encoding": "identity"}) as answer:
        for piece in answer.iter_raw():
            got += len(piece)
            if got >= most or time.monotonic() > until_s:
                break
    return got


def _offset(date: str | None, asked_s: float, told_s: float) -> float | None:
    """How far our clock is before the gateway's. Its date has whole seconds: half of one is added to it."""
    try:
        theirs_s = parsedate_to_datetime(date).timestamp() + 0.5 if date else None
    except (TypeError, ValueError):
        return None
    return None if theirs_s is None else (asked_s + told_s) / 2 - theirs_s


def _clock(offset_s: float) -> Row:
    found = f"{offset_s:+.1f} s from the gateway's, known to a second"
    if abs(offset_s) > MOST_OFFSET_S:
        return Row("clock (gateway)", "red", found, "let the system set its time: timedatectl set-ntp true")
    return Row("clock (gateway)", "green", found)
