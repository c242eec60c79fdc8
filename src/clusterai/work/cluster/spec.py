"""What is rented, and what is asked for: a machine of a cluster, and one interval of its time after another.

An interval's answer is its heartbeats (`core/heartbeats.py`), as tokens of one `messages.Answer`; so receipts, digests, transcripts and
audits need to know nothing of clusters.

Bounds: whatever was asked must fit an answer to a challenge on chain (24,576 bytes, `audit.core.opening`). A cell, one core's chain at one
heartbeat, takes up to 65 bytes of it.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.rentals import MOST_SPEC_BYTES
from clusterai.work.request import within

GCS_PORT, JOBS_PORT, CLIENT_PORT, SHELL_PORT, NOTEBOOK_PORT = 6379, 8265, 10001, 2222, 8888
"""Where Ray, the shell and a notebook listen, on the mesh alone."""
IMAGES = ("ray-2.60.0",)
BEAT_S = 2
"""Between two heartbeats: a machine that died is noticed within two of them."""
MOST_BEATS = 15
MOST_CORES = 150
MOST_CELLS = 300
MOST_SLACK_PPM = 13_000


class ClusterSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of each machine of the cluster, what the tenant may use.

    Attributes:
        disk_bytes: of the volume, whose key dies with the lease.
        env: for the tenant's processes; no secrets, since the machines' owners can read it.
    """

    image: Annotated[str, Meta(max_length=64)] = IMAGES[0]
    cpu_milli: Annotated[int, Meta(ge=1000, le=1_024_000)] = 1000
    memory_bytes: Annotated[int, Meta(ge=512 << 20, le=4 << 40)] = 2 << 30
    disk_bytes: Annotated[int, Meta(ge=256 << 20, le=16 << 40)] = 2 << 30
    gpus: Annotated[int, Meta(ge=0, le=64)] = 0
    env: Annotated[
        dict[
            Annotated[str, Meta(max_length=128, pattern=r"\A[A-Za-z_][A-Za-z0-9_]*\Z")],
            Annotated[str, Meta(max_length=4096)],
        ],
        Meta(max_length=64),
    ] = {}

    @property
    def cores(self) -> int:
        """Whole cores: what chains run on."""
        return self.cpu_milli // 1000

    def canonical(self) -> bytes:
        return canonical.encode(self)


def decode_spec(raw: bytes) -> ClusterSpec:
    """
    Raises:
        canonical.Malformed: a stranger's nonsense.
    """
    return canonical.decode(raw, ClusterSpec, MOST_SPEC_BYTES)


class Interval(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="cluster.1"):
    """Some seconds of one machine, and what its sentinel has to show for them.

    Attributes:
        model: the stay (`rentals.stay_model`).
        number: of this stay's intervals, from 0.
        beats: heartbeats, evenly spread over `seconds`, the last one at its end.
        links_per_s_milli: of one core's chain alone, as a validator measured it; 0 where nobody did, and then time counts as it passed.
        slack_ppm: by how much honest machines may fall short of that.
        seed: fresh; the chains begin anew with it, so that they can't have run ahead.
        before: head of the interval before (`rentals.head_of`), zeros for the first; the heartbeats of a stay hang together by it.
    """

    model: bytes
    number: int
    seconds: int
    beats: int
    cores: int
    links_per_s_milli: int
    slack_ppm: int
    seed: bytes
    before: bytes

    def __post_init__(self) -> None:
        for name in ("model", "seed", "before"):
            within(f"length of {name} in bytes", len(getattr(self, name)), 32, 32)
        within("number", self.number, 0, 2**32)
        within("beats", self.beats, 1, MOST_BEATS)
        within("seconds", self.seconds, 1, BEAT_S * MOST_BEATS)
        within("cores", self.cores, 1, MOST_CORES)
        within("cells", self.cores * self.beats, 1, MOST_CELLS)
        within("links_per_s_milli", self.links_per_s_milli, 0, 10**9)
        within("slack_ppm", self.slack_ppm, 0, MOST_SLACK_PPM)

    def canonical(self) -> bytes:
        return canonical.encode(self)


def decode_interval(raw: bytes) -> Interval:
    """
    Raises:
        canonical.Malformed: a stranger's nonsense.
    """
    return canonical.decode(raw, Interval)


def beats_for(cores: int) -> int:
    """How many heartbeats an interval of such a machine has: fewer where each says more."""
    return max(1, min(MOST_BEATS, MOST_CELLS // min(cores, MOST_CORES)))


def seed_of(secret: bytes, model: Digest, number: int) -> Digest:
    """An interval's seed, which nobody knows before it is asked for."""
    return Digest(keccak(b"clusterai interval" + secret + model + number.to_bytes(5, "big")))
