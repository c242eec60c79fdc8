"""How Ray is started in a rented machine: its ports, its words, its environment."""

from collections.abc import Sequence
from pathlib import Path

from clusterai.sandbox.core.bubble import Bind, Root
from clusterai.work.cluster.spec import CLIENT_PORT, GCS_PORT, JOBS_PORT

INSIDE = "/clusterai"
"""Where our own programs are in the sandbox."""
TOKEN = "/job/.ray/token"  # noqa: S105  a place, not a token
MiB = 1 << 20
KEEPALIVE = {
    # Who waits for an answer asks after so long whether the other is there, by default after five minutes. Ray's servers hang up on who asks
    # more than once a minute.
    "RAY_grpc_client_keepalive_time_ms": "75000",
    # Longer than a machine is waited for that isn't heard: what comes back before it is exchanged finds its connections as they were.
    "RAY_grpc_client_keepalive_timeout_ms": "40000",
}
LEAST_STORE = 80 * MiB
"""Ray wants 75 MiB for its objects, or doesn't start."""


def root(environment: Path, base: Path, system: Root, inside: Path) -> Root:
    """What a rented machine shows: the system's programs, Ray's own Python and nothing of the node's.

    Args:
        environment: Ray's.
        base: the Python installation that the environment was made from.
        system: /usr and its links.
        inside: the folder of our programs.
    """
    binds = [*system.binds]
    for folder in (base, environment):
        if not any(str(folder) == it.dest or str(folder).startswith(it.dest + "/") for it in binds):
            binds.append(Bind(str(folder), str(folder)))
    binds.append(Bind(str(inside), INSIDE))
    return Root(
        name="ray",
        binds=tuple(binds),
        links=system.links,
        # A job's `python` and `ray` are the environment's own.
        path=f"{environment}/bin:{base}/bin:/usr/local/bin:/usr/bin:/bin",
        env={
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            # Two seconds each: a worker waits for a head on a slow machine as long as a stay may take to join.
            "RAY_NUM_REDIS_GET_RETRIES": "45",
            **KEEPALIVE,
            # What is forked of a process that speaks gRPC is another program at once; handlers that wake its threads before that can end it.
            "GRPC_ENABLE_FORK_SUPPORT": "0",
        },
    )


def bare(root: Root) -> Root:
    """The same for the sentinel, to which Ray's environment says nothing."""
    return Root(name=root.name, binds=root.binds, links=root.links, path=root.path)


def store_bytes(memory_bytes: int) -> int:
    """Of a machine's memory, what is for Ray's objects: its own share of 30 %."""
    return max(LEAST_STORE, memory_bytes * 3 // 10)


def words(address: str, head: str, cpus: int, gpus: int, memory_bytes: int) -> Sequence[str]:
    """For `ray start`, of the head where `address` is `head`'s, else of a worker."""
    common = [
        f"--node-ip-address={address}",
        f"--num-cpus={cpus}",
        f"--num-gpus={gpus}",
        f"--memory={memory_bytes * 6 // 10}",
        f"--object-store-memory={store_bytes(memory_bytes)}",
        "--temp-dir=/tmp/ray",
        "--disable-usage-stats",
    ]
    if address != head:
        return [*common, f"--address={head}:{GCS_PORT}"]
    return [
        *common,
        "--head",
        "--no-monitor",
        f"--port={GCS_PORT}",
        f"--ray-client-server-port={CLIENT_PORT}",
        "--include-dashboard=true",
        f"--dashboard-host={address}",
        f"--dashboard-port={JOBS_PORT}",
    ]
