"""A node's configuration; where its values come from is `runtime/adapters/config.py`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Meta

from clusterai.protocol.offers import MOST_LIFE_S, MOST_PRICE_WEI, Label
from clusterai.runtime.adapters.config import BadConfig, Count, Dialer, Part, Seconds, Wei, load


class ModelConfig(Part, frozen=True, kw_only=True):
    """A model to serve.

    Attributes:
        name: name or address in the model store, a built-in's name, or `tiny`, the toy without weights.
        input_wei, output_wei: price per token; None takes the card's suggestion.
        slots: answers in work at once.
        queue: answers waiting in the engine beyond those.
        threads: of the engine; one per engine is fastest where cores are shared.
        cache_mb: of keys and values, all answers together.
        pause_ms: `tiny` only: time per token, so that a stream can be watched.
    """

    name: str
    input_wei: Wei | None = None
    output_wei: Wei | None = None
    slots: Count = 32
    queue: Count = 128
    threads: Count = 1
    cache_mb: Count = 512
    pause_ms: Annotated[float, Meta(ge=0, le=10_000)] = 0.0


class JobsConfig(Part, frozen=True, kw_only=True):
    """What is lent to jobs, at which price.

    Attributes:
        most: leases in work at once.
        cpu_milli: thousandths of a core, for all jobs together.
        disk_bytes: inputs, states and outputs, all jobs together.
        core_hour_wei, memory_gib_hour_wei: price of an hour of a core, of a GiB.
        giga_fuel_wei: price of 10^9 units of a WASM module's fuel.
        handed_bytes_s: what this machine's line hands over in a second. A job whose segments begin with more than that in half of an auditor's time isn't
            committed to: a panel that asks for it would convict who can't hand it over.
        bait: let gateways plant leases for which nothing is run, so that auditors who copy are found. One that isn't drawn is paid
            like work; one that is, a tenth of them at a stake of ten times the price, isn't.
    """

    most: Count = 4
    cpu_milli: Annotated[int, Meta(ge=100, le=1_024_000)] = 1_000
    memory_bytes: Annotated[int, Meta(ge=16 * 1024**2, le=4 * 1024**4)] = 2 * 1024**3
    disk_bytes: Annotated[int, Meta(ge=1024**2, le=16 * 1024**4)] = 8 * 1024**3
    processes: Count = 256
    most_time_s: Annotated[int, Meta(ge=1, le=30 * 86_400)] = 86_400
    core_hour_wei: Wei = 20_000_000
    memory_gib_hour_wei: Wei = 3_000_000
    giga_fuel_wei: Wei = 10_000
    handed_bytes_s: Annotated[int, Meta(ge=64 * 1024, le=1024**4)] = 8 * 1024**2
    bait: bool = True


Clock = Annotated[str, Meta(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEK: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class HoursConfig(Part, frozen=True, kw_only=True):
    """A window of hours in which new work is taken.

    Attributes:
        days: on which it begins.
        begin, end: HH:MM as the clock on the wall shows in `zone`; an end before the beginning is the next day's.
    """

    days: Annotated[tuple[Day, ...], Meta(min_length=1, max_length=7)] = WEEK
    begin: Clock
    end: Clock


class IdleConfig(Part, frozen=True, kw_only=True):
    """Take work only while others don't use the machine.

    Attributes:
        most_foreign: share of all processors, 0 to 1, that programs other than the node may take.
        after_s: for so long it has to have been unused.
        input_s: somebody who typed at a terminal within so long uses it; 0 doesn't look.
    """

    most_foreign: Annotated[float, Meta(ge=0, le=1)] = 0.25
    after_s: Seconds = 300.0
    input_s: Seconds = 300.0


class PowerConfig(Part, frozen=True, kw_only=True):
    """How much of the machine the node may draw on at most.

    Attributes:
        cores: processors that the node and its jobs run on; null is all. Engines and sandboxes inherit it.
        nice: how much other programs go first: 0 alike, 19 gets what nobody else wants.
        gpu_watts: power limit of each NVIDIA GPU while the node runs; null leaves it. It takes the driver's permission,
            and where that is missing the node says so and goes on.
    """

    cores: Count | None = None
    nice: Annotated[int, Meta(ge=0, le=19)] = 0
    gpu_watts: Count | None = None


class RentalsConfig(Part, frozen=True, kw_only=True):
    """What of the machine is rented out whole, by the hour, and at which price.

    Attributes:
        hour_wei: price of an hour; an offer binds until it expires.
        region: where the machine stands, in letters of its operator's choice, such as `eu-de`; others measure it.
        hardware: class in which equal work gives equal times; empty is what is found, such as `x86-64-v3`.
        cpu_milli: thousandths of a core that a renter gets.
        memory_bytes, disk_bytes: what a renter gets.
        gpu, gpus: kind and number of GPUs that a renter gets; an empty kind is what the driver says, `h100` of an H100. They are lent whole.
        cards: which ones, by their UUIDs (`nvidia-smi -L`) or the driver's numbers; empty is the first `gpus` of them.
        bandwidth_kbps: the lesser of both directions; 0 where you don't know it, which claims nothing.
        memory_kbytes_per_s: how fast all cores together read memory; 0 says nothing. Validators measure it.
        longest_s: nobody books it for longer ahead.
        ray: Ray's Python environment, as `scripts/install.py ray` makes it; empty is `peers/ray` in our own.
        allowed: programs, as `ps -o comm` names them, that may run beside a tenant; time with others isn't paid.
            `*` lets all run: of a machine that is shared on purpose, such as one with a whole network on it.
        life_s: how long an offer stands; it is renewed at half of that.
    """

    hour_wei: Annotated[int, Meta(ge=0, le=MOST_PRICE_WEI)] = 100_000_000
    region: Label = ""
    hardware: Label = ""
    cpu_milli: Annotated[int, Meta(ge=100, le=1_024_000)] = 1_000
    memory_bytes: Annotated[int, Meta(ge=64 * 1024**2, le=16 * 1024**4)] = 2 * 1024**3
    disk_bytes: Annotated[int, Meta(ge=64 * 1024**2, le=256 * 1024**4)] = 8 * 1024**3
    gpu: Label = ""
    gpus: Annotated[int, Meta(ge=0, le=64)] = 0
    cards: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=64)] = ()
    bandwidth_kbps: Annotated[int, Meta(ge=0, le=2**40 - 1)] = 0
    memory_kbytes_per_s: Annotated[int, Meta(ge=0, le=2**40 - 1)] = 0
    longest_s: Annotated[int, Meta(ge=60, le=30 * 86_400)] = 86_400
    ray: str = ""
    allowed: Annotated[tuple[Annotated[str, Meta(max_length=15)], ...], Meta(max_length=256)] = ()
    life_s: Annotated[int, Meta(ge=60, le=MOST_LIFE_S)] = 600

    @property
    def home(self) -> Path:
        """Of Ray."""
        return Path(self.ray) if self.ray else Path(sys.prefix) / "peers" / "ray"


class VaultConfig(Part, frozen=True, kw_only=True):
    """A vault: data that stays here, and is asked by those whom its policy lets.

    Attributes:
        folder: as `clusterai vault init` made it.
        slots: orders in work at once, of each kind of work.
        calls: calls answered at once.
        call_s: how long one call may take, its answer's way included.
    """

    folder: Annotated[str, Meta(min_length=1)]
    slots: Count = 4
    calls: Count = 16
    call_s: Seconds = 240.0


class Config(Dialer, frozen=True, kw_only=True):
    """One node.

    Attributes:
        models: what to serve; may be empty where there are vaults.
        vaults: data that lies here and is asked from outside.
        jobs: what is lent to jobs; null lends nothing.
        credit_wei: how much of a gateway's debt is borne before its orders are refused. At the default price some
            25,000 answers; lower it for gateways you don't know.
        queue: orders accepted beyond the slots of all models.
        least_claim_wei: a channel's vouchers are claimed when at least this is due.
        grace_s: how long running answers may go on after SIGTERM.
        hours: take new work only then; none is always. Outside them the node is as if paused: what runs may end.
        zone: the time zone of `hours`, by its IANA name: Europe/Berlin, UTC.
        idle: take new work only while others don't use the machine; null is always.
        power: limits on processors and power; null sets none.
        rentals: what is rented out whole, by the hour; null offers nothing.
    """

    models: Annotated[tuple[ModelConfig, ...], Meta(max_length=64)] = ()
    vaults: Annotated[tuple[VaultConfig, ...], Meta(max_length=16)] = ()
    credit_wei: Wei = 10_000_000_000
    queue: Annotated[int, Meta(ge=0, le=100_000)] = 64
    least_claim_wei: Wei = 1
    grace_s: Seconds = 5.0
    jobs: JobsConfig | None = None
    hours: Annotated[tuple[HoursConfig, ...], Meta(max_length=64)] = ()
    zone: str | None = None
    idle: IdleConfig | None = None
    power: PowerConfig | None = None
    rentals: RentalsConfig | None = None

    def check(self) -> None:
        super().check()
        if not self.models and not self.vaults:
            raise ValueError("name a model to serve, or a vault")
        if len({vault.folder for vault in self.vaults}) != len(self.vaults):
            raise ValueError("each vault once")
        if len({model.name for model in self.models}) != len(self.models):
            raise ValueError("each model once")
        if self.hours and self.zone is None:
            raise ValueError("`hours` need a `zone`, such as Europe/Berlin or UTC")
        if self.zone is not None:
            try:
                ZoneInfo(self.zone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError(f"`zone`: this machine knows no time zone {self.zone!r}") from None


def load_config(path: Path, environment: Mapping[str, str]) -> Config:
    return load(Config, "node", path, environment)


__all__ = [
    "BadConfig",
    "Config",
    "HoursConfig",
    "IdleConfig",
    "JobsConfig",
    "ModelConfig",
    "PowerConfig",
    "RentalsConfig",
    "VaultConfig",
    "load_config",
]
