"""How a validator finds out what a machine is: signed tests through the gateway, signed answers, and what came of them.

    validator                gateway                     node
       |== Relay(Examine(Introduce)) ====================> |   what do you say that you are?
       | <========================== Relay(Shown(Claims)) =|
       |== Relay(Examine(Echo)) =========================> |   and so on, one test at a time
       | <============================================ ... |
       |-- Measured ------------> |                        |   what it was found to be, for the feed of offers
       |== Relay(Measured) ==============================> |   and for the node's own card

Each test has a seed that nobody knew before, so nothing can be prepared; the validator's clock counts. A node answers validators
that were drawn for it, a bounded number of times a day, and never while it is rented.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.canonical import digest
from clusterai.protocol.eip712 import Domain, typed_digest
from clusterai.protocol.ids import Digest
from clusterai.protocol.offers import MOST_BYTES, Height, Label, Microseconds, Ppm
from clusterai.protocol.statements import U8, U32, U40, U63, AddressBytes, DigestBytes, SignatureBytes

MOST_SIZE = 1_024
MOST_LINKS = 256
MOST_CORES = 1_024
MOST_MS = 30_000
MOST_STRETCHES = 4_096
MOST_PAGES = 2**24
MOST_SHOWN_PAGES = 16
MOST_SWEEPS = 64
MOST_PART_BYTES = 1024 * 1024
MOST_FINDINGS_BYTES = 16 * 1024
MOST_STORED_BYTES = 1024**3

Small = Annotated[int, Meta(ge=0, le=2**16 - 1)]
Name = Annotated[str, Meta(max_length=64, pattern=r"\A[ -~]*\Z")]


class _Test(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base: what is asked."""


class Introduce(_Test, frozen=True):
    """Say what you are: `Claims`."""


class Echo(_Test, frozen=True):
    """Answer at once: `Echoed`."""


class Multiply(_Test, frozen=True):
    """A chain of products (`audit/core/products.py`) on each of `cores` cores at once, or on one GPU: `Committed`.

    The seed of chain k is the digest of the test's seed and k (`chain_seed`).

    Attributes:
        gpu: counted from 1; 0 are the cores.
    """

    gpu: U8
    cores: Annotated[int, Meta(ge=1, le=MOST_CORES)]
    size: Annotated[int, Meta(ge=1, le=MOST_SIZE)]
    links: Annotated[int, Meta(ge=1, le=MOST_LINKS)]


class ShowLink(_Test, frozen=True):
    """Open a link of the test whose seed was `of`: `Part`s of X, Y and the Y before."""

    of: DigestBytes
    chain: Small
    link: Small


class Run(_Test, frozen=True):
    """The sentinel's chain on each of these cores, for so long: `Ran`."""

    cores: Annotated[tuple[Small, ...], Meta(min_length=1, max_length=MOST_CORES)]
    ms: Annotated[int, Meta(ge=1, le=MOST_MS)]


class Fill(_Test, frozen=True):
    """Fill this much memory on each of `cores` cores at once (`audit/core/pages.py`), and hold it: `Filled`."""

    cores: Annotated[int, Meta(ge=1, le=MOST_CORES)]
    pages: Annotated[int, Meta(ge=2, le=MOST_PAGES)]


class ShowPages(_Test, frozen=True):
    """Open these pages of a fill, which you still hold: `Part`s of `PagesShown`. It is over then."""

    of: DigestBytes
    chain: Small
    pages: Annotated[tuple[U32, ...], Meta(min_length=1, max_length=MOST_SHOWN_PAGES)]


class Sweep(_Test, frozen=True):
    """Read all that you filled, so often, on all its cores at once (`audit/core/sweeps.py`): `Swept`."""

    of: DigestBytes
    rounds: Annotated[int, Meta(ge=1, le=MOST_SWEEPS)]


class ShowSweep(_Test, frozen=True):
    """Open these values of a sweep, each at round * pages + page: `Part`s of `SweepShown`."""

    of: DigestBytes
    chain: Small
    places: Annotated[tuple[U32, ...], Meta(min_length=1, max_length=MOST_SHOWN_PAGES)]


class Store(_Test, frozen=True):
    """Write so many bytes of what the seed gives to disk, so that they would survive a crash: `Stored`, without a digest."""

    size: Annotated[int, Meta(ge=1, le=MOST_STORED_BYTES)]


class Reread(_Test, frozen=True):
    """Read again what you stored: `Stored`, with the digest of this test's seed and all of it."""

    of: DigestBytes


class Take(_Test, frozen=True):
    """Take this: `Echoed` for the last of them. The seed of part k is `chain_seed(the first part's, k)`."""

    data: Annotated[bytes, Meta(max_length=MOST_PART_BYTES)]
    last: bool


class Give(_Test, frozen=True):
    """Send so much of what the seed gives: `Part`s."""

    size: Annotated[int, Meta(ge=1, le=16 * MOST_PART_BYTES)]


Test = (
    Introduce
    | Echo
    | Multiply
    | ShowLink
    | Run
    | Fill
    | ShowPages
    | Sweep
    | ShowSweep
    | Store
    | Reread
    | Take
    | Give
)


class _Result(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base: what is answered."""


class Gpu(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """As the driver says it, which its owner can make it say."""

    name: Label
    uuid: Name
    memory_bytes: U63


class Claims(_Result, frozen=True):
    """What the owner says of the machine.

    Attributes:
        serial: of the offer that says the same; 0 where there is none.
        cores: that would work at once, each claimed alike.
        memory_kbytes_per_s: at which all of them together read memory; 0 says nothing.
    """

    serial: U63
    hardware: Label
    processor: Name
    cores: Annotated[int, Meta(ge=1, le=MOST_CORES)]
    cpu_milli: U32
    memory_bytes: U63
    disk_bytes: U63
    gpus: Annotated[tuple[Gpu, ...], Meta(max_length=16)]
    region: Label
    bandwidth_kbps: U40
    memory_kbytes_per_s: U40 = 0


class Echoed(_Result, frozen=True):
    pass


class Committed(_Result, frozen=True):
    """Of each chain its links' commitments."""

    chains: Annotated[
        tuple[Annotated[tuple[DigestBytes, ...], Meta(max_length=MOST_LINKS)], ...],
        Meta(min_length=1, max_length=MOST_CORES),
    ]


class Ran(_Result, frozen=True):
    """Of each core the values of its chain, one for every `STRETCH` links, the first behind the first stretch."""

    cores: Annotated[
        tuple[Annotated[tuple[DigestBytes, ...], Meta(max_length=MOST_STRETCHES)], ...],
        Meta(min_length=1, max_length=MOST_CORES),
    ]


class Filled(_Result, frozen=True):
    roots: Annotated[tuple[DigestBytes, ...], Meta(min_length=1, max_length=MOST_CORES)]


class Swept(_Result, frozen=True):
    """Of each chain the roots of its rounds."""

    chains: Annotated[
        tuple[Annotated[tuple[DigestBytes, ...], Meta(max_length=MOST_SWEEPS)], ...],
        Meta(min_length=1, max_length=MOST_CORES),
    ]


class Stored(_Result, frozen=True):
    digest: DigestBytes


class Part(_Result, frozen=True):
    """A piece of what was asked, at `start` of `total` bytes."""

    start: U63
    total: U63
    data: Annotated[bytes, Meta(max_length=MOST_PART_BYTES)]


class Declined(_Result, frozen=True):
    """I don't. `code`: busy, rented, too_often, no_gpu, too_large, unable, gone."""

    code: Annotated[str, Meta(max_length=16)]
    detail: Annotated[str, Meta(max_length=200)]


Result = Claims | Echoed | Committed | Ran | Filled | Swept | Stored | Part | Declined


class _Frame(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """As in `messages`."""


class Examine(_Frame, frozen=True):
    """Validator: do this, and I take the time. Signed by its hot key under the network's domain."""

    validator: AddressBytes
    provider: AddressBytes
    seed: DigestBytes
    at_s: U40
    test: Test
    signature: SignatureBytes

    def signing_digest(self, network: Domain) -> Digest:
        return typed_digest(network.separator(), digest(msgspec.structs.replace(self, signature=bytes(65))))


class Shown(_Frame, frozen=True):
    """Provider: the answer to the test with this seed; signed by the machine's own key, `node`."""

    provider: AddressBytes
    node: AddressBytes
    seed: DigestBytes
    result: Result
    signature: SignatureBytes

    def signing_digest(self, network: Domain) -> Digest:
        return typed_digest(network.separator(), digest(msgspec.structs.replace(self, signature=bytes(65))))


class Trip(_Frame, frozen=True):
    """Validator to validator: the least round trip that I measured to this machine, and where I am.

    Attributes:
        region: that I stand in.
        x_us, y_us, z_us, height_us, error_ppm: my network coordinate.
    """

    validator: AddressBytes
    node: AddressBytes
    rtt_us: U32
    at_s: U40
    region: Label
    x_us: Microseconds
    y_us: Microseconds
    z_us: Microseconds
    height_us: Height
    error_ppm: Ppm
    signature: SignatureBytes

    def signing_digest(self, network: Domain) -> Digest:
        return typed_digest(network.separator(), digest(msgspec.structs.replace(self, signature=bytes(65))))


class Measured(_Frame, frozen=True):
    """Validator: a `MachineMeasurement`, signed, and the findings whose digest stands in it."""

    measurement: Annotated[bytes, Meta(max_length=MOST_BYTES)]
    signature: SignatureBytes
    findings: Annotated[bytes, Meta(max_length=MOST_FINDINGS_BYTES)]


class Finding(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One thing that was tried.

    Attributes:
        name: what, with its unit last.
        claimed: what the owner says, where it says anything.
        found: what was shown; None where nothing could be, and `note` says why.
    """

    name: Name
    claimed: U63 | None
    found: U63 | None
    note: Annotated[str, Meta(max_length=200)]


class Findings(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All that one examination came to; its digest is signed within the measurement.

    Attributes:
        round: of the beacon that drew the validator.
        began_s, took_ms: by the validator's clock.
    """

    node: AddressBytes
    validator: AddressBytes
    round: U63
    began_s: U40
    took_ms: U40
    claims: Claims
    found: Annotated[tuple[Finding, ...], Meta(max_length=64)]


MeasureFrame = Measured
"""What may stand on a link."""
MeasureRelayed = Examine | Shown | Trip | Measured
"""What may stand in a `Relay.body`."""


def chain_seed(seed: bytes, chain: int) -> Digest:
    """Of one of several chains that a test runs at once."""
    return canonical.content_digest(b"clusterai chain" + seed + chain.to_bytes(4))


def decode_findings(data: bytes) -> Findings:
    """
    Raises:
        Malformed.
    """
    return canonical.decode(data, Findings, MOST_FINDINGS_BYTES)
