"""What machines are offered with and measured by: an operator's offer of one machine, a validator's findings about it.

    MachineOffer        the machine's own key   "rent me whole, at this price an hour, until then"
    MachineMeasurement  validator               "I found these of its fields to be so, then"

An offer binds its operator until it expires; the next serial number replaces it, and one that expires as it is issued takes the
machine out. Texts are short and plain, since strangers' words are shown to people.
"""

from enum import IntFlag
from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.eip712 import Domain, struct_hash, type_hash, typed_digest
from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.statements import U8, U32, U40, U63, AddressBytes, DigestBytes

MOST_BYTES = 512
"""Neither statement can be longer."""
MOST_CARD_BYTES = 192 * 1024
MOST_PRICE_WEI = 10**15
MOST_LIFE_S = 3_600
MOST_RENTED_S = 30 * 86_400
"""An offer stands an hour at most: what nobody renews is gone."""
MILLION = 1_000_000
MOST_PLACE_US = 2_000_000

Label = Annotated[str, Meta(max_length=32, pattern=r"\A[a-z0-9.-]*\Z")]
Price = Annotated[int, Meta(ge=0, le=MOST_PRICE_WEI)]
Ppm = Annotated[int, Meta(ge=0, le=MILLION)]
Microseconds = Annotated[int, Meta(ge=-MOST_PLACE_US, le=MOST_PLACE_US)]
Height = Annotated[int, Meta(ge=0, le=MOST_PLACE_US)]


class Field(IntFlag):
    """What of a machine can be measured; bits, so that one measurement may cover several."""

    HARDWARE = 1
    CPU = 2
    MEMORY = 4
    GPU = 8
    REGION = 16
    BANDWIDTH = 32
    RELIABILITY = 64
    COORDINATE = 128
    PROFILE = 256
    """How fast a core does the sentinel's links alone: what a rental's proven time is counted in."""


ALL_FIELDS = Annotated[int, Meta(ge=1, le=511)]


class _Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base: canonical bytes are a MessagePack array in the order of the fields."""


class MachineOffer(_Signed, frozen=True, array_like=True):
    """Signed by `node`, which the Registry must know as a key of `operator`.

    Attributes:
        serial: higher replaces lower, whatever the clock says.
        bandwidth_kbps: the lesser of both directions.
        price_wei: of one hour of the whole machine.
        disk_bytes: how large a volume a renter gets at most.
        longest_s: nobody books it for longer ahead.
    """

    node: AddressBytes
    operator: AddressBytes
    serial: U63
    hardware: Label
    cpu_milli: U32
    memory_bytes: U63
    gpu: Label
    gpus: U8
    region: Label
    bandwidth_kbps: U40
    price_wei: Price
    issued_s: U40
    expires_s: U40
    disk_bytes: U63 = 0
    longest_s: U40 = MOST_RENTED_S

    TYPE = type_hash(
        "MachineOffer(address node,address operator,uint64 serial,string hardware,uint32 cpuMilli,uint64 memoryBytes,"
        "string gpu,uint8 gpus,string region,uint40 bandwidthKbps,uint128 price,uint40 issuedAt,uint40 expiresAt,"
        "uint64 diskBytes,uint40 longest)"
    )

    def struct(self) -> Digest:
        return struct_hash(
            self.TYPE,
            self.node,
            self.operator,
            self.serial,
            keccak(self.hardware.encode()),
            self.cpu_milli,
            self.memory_bytes,
            keccak(self.gpu.encode()),
            self.gpus,
            keccak(self.region.encode()),
            self.bandwidth_kbps,
            self.price_wei,
            self.issued_s,
            self.expires_s,
            self.disk_bytes,
            self.longest_s,
        )


class MachineMeasurement(_Signed, frozen=True, array_like=True):
    """Signed by a hot key of `validator`. Fields whose bit isn't in `fields` are zero and mean nothing.

    Attributes:
        serial: of the offer that was measured against; nothing follows from it but what was then claimed.
        cpu_milli: thousandths of cores that answered at once: whole where one ran at half of its speed alone or better, as hardware threads do.
        memory_bytes: what it held at once under test; a claim that held is left to stand, so this comes with a claim that did not.
        reliability_ppm: of the times that it was asked, those that it answered.
        x_us, y_us, z_us, height_us: network coordinate.
        links_per_s_milli: thousandths of the sentinel's links a second, of one core alone; a floor.
        links_at_once_per_s_milli: of all cores' chains together, run at once; a floor.
        findings: digest of `measuring.Findings`, all that was found.
    """

    node: AddressBytes
    validator: AddressBytes
    serial: U63
    fields: ALL_FIELDS
    hardware: Label
    cpu_milli: U32
    memory_bytes: U63
    gpu: Label
    gpus: U8
    region: Label
    bandwidth_kbps: U40
    reliability_ppm: Ppm
    x_us: Microseconds
    y_us: Microseconds
    z_us: Microseconds
    height_us: Height
    links_per_s_milli: U32
    links_at_once_per_s_milli: U32
    findings: DigestBytes
    at_s: U40

    TYPE = type_hash(
        "MachineMeasurement(address node,address validator,uint64 serial,uint16 fields,string hardware,uint32 cpuMilli,"
        "uint64 memoryBytes,string gpu,uint8 gpus,string region,uint40 bandwidthKbps,uint32 reliabilityPpm,"
        "int32 x,int32 y,int32 z,uint32 height,uint32 linksPerSecondMilli,uint32 linksAtOncePerSecondMilli,"
        "bytes32 findings,uint40 at)"
    )

    def struct(self) -> Digest:
        return struct_hash(
            self.TYPE,
            self.node,
            self.validator,
            self.serial,
            self.fields,
            keccak(self.hardware.encode()),
            self.cpu_milli,
            self.memory_bytes,
            keccak(self.gpu.encode()),
            self.gpus,
            keccak(self.region.encode()),
            self.bandwidth_kbps,
            self.reliability_ppm,
            # Two's complement, as the ABI has signed integers.
            self.x_us % 2**256,
            self.y_us % 2**256,
            self.z_us % 2**256,
            self.height_us,
            self.links_per_s_milli,
            self.links_at_once_per_s_milli,
            self.findings,
            self.at_s,
        )


def signed_digest(statement: MachineOffer | MachineMeasurement, network: Domain) -> Digest:
    """What is signed, in the network's domain."""
    return typed_digest(network.separator(), statement.struct())


def decode_offer(data: bytes) -> MachineOffer:
    """
    Raises:
        Malformed: too long, of another shape, out of bounds, or not canonical.
    """
    return canonical.decode(data, MachineOffer, MOST_BYTES)


def decode_measurement(data: bytes) -> MachineMeasurement:
    """
    Raises:
        Malformed: as above.
    """
    return canonical.decode(data, MachineMeasurement, MOST_BYTES)
