"""What a job costs.

A WASM job is paid by the fuel that it used, which an audit counts again, other jobs by the segments that were done: nobody can
prove how long a stranger's processor worked, and a provider that is paid by its own clock has a reason to be slow.
What is promised (cores, memory, disk, GPUs, for `time_s`) makes the price. Three tenths of it are paid for a machine that was
set aside, however little there was to do, and the rest by the share that was done.

All divisions round up: where something is used, something is paid.
"""

import msgspec

from clusterai.protocol.leases import earned_wei
from clusterai.work.batch.spec import GIB, JobSpec
from clusterai.work.request import within

HOUR_S = 3600
GIGA = 10**9
MOST_TARIFF_WEI = 10**15
AUDIT_MARGIN_PPM = 1_200_000
"""An auditor gets this times the price of the segment that it runs again, so that looking pays."""


class Tariff(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a provider charges.

    Attributes:
        core_hour_wei: for a core, for an hour.
        memory_gib_hour_wei, disk_gib_hour_wei: for a GiB, for an hour.
        gpu_hour_wei: for a GPU, for an hour.
        giga_fuel_wei: for 10^9 units of a WASM module's fuel.
        unverified_ppm: an unverified job's price, in millionths of a verified one's: no stake stands behind it.
    """

    core_hour_wei: int = 20_000_000
    memory_gib_hour_wei: int = 3_000_000
    disk_gib_hour_wei: int = 100_000
    gpu_hour_wei: int = 1_000_000_000
    giga_fuel_wei: int = 10_000
    unverified_ppm: int = 900_000

    def __post_init__(self) -> None:
        for name in self.__struct_fields__[:-1]:
            within(name, getattr(self, name), 0, MOST_TARIFF_WEI)
        within("unverified_ppm", self.unverified_ppm, 0, 1_000_000)


def hourly_wei(tariff: Tariff, spec: JobSpec) -> int:
    """An hour of what the job is promised."""
    wants = spec.resources
    micro = (
        tariff.core_hour_wei * wants.cpu_milli * 1000
        + _ceil(tariff.memory_gib_hour_wei * wants.memory_bytes * 1_000_000, GIB)
        + _ceil(tariff.disk_gib_hour_wei * wants.disk_bytes * 1_000_000, GIB)
        + tariff.gpu_hour_wei * wants.gpus * 1_000_000
    )
    if spec.check == "unverified":
        micro = _ceil(micro * tariff.unverified_ppm, 1_000_000)
    return _ceil(micro, 1_000_000)


def total_wei(tariff: Tariff, spec: JobSpec) -> int:
    """The most that it costs: a lease's compensation."""
    if spec.check == "wasm":
        return _ceil(tariff.giga_fuel_wei * spec.fuel, GIGA)
    return _ceil(hourly_wei(tariff, spec) * spec.resources.time_s, HOUR_S)


def least_wei(compensation_wei: int) -> int:
    """What work costs that was done, however little there was to do."""
    return earned_wei(compensation_wei, 0, 1)


def billable_wei(spec: JobSpec, compensation_wei: int, units: int) -> int:
    """What a provider may ask for the units that it committed to; all of them cost the compensation."""
    return earned_wei(compensation_wei, min(max(0, units), spec.units()), spec.units())


def audit_fee_wei(spec: JobSpec, compensation_wei: int) -> int:
    """Set aside for the auditor; it comes back where nothing was drawn. An unverified job has no auditor."""
    if spec.check == "unverified":
        return 0
    return _ceil(compensation_wei * AUDIT_MARGIN_PPM, 1_000_000 * spec.segments)


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
