"""A machine's card: what its owner claims, what validators found, who attests what else, whose it is; named by the digest of its bytes.

    card = canonical bytes of Card            digest = BLAKE3 of them, in the Registry under the owner (`updateCard`)

Whoever has the bytes checks all of it alone: each measurement and each attestation carries its own signature. The digest in the Registry
says which card is the owner's present one; it doesn't make it true.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.belonging import Belonging, owner_of
from clusterai.protocol.canonical import Malformed, digest
from clusterai.protocol.eip712 import Domain, typed_digest
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.measuring import Claims, Measured, decode_findings
from clusterai.protocol.offers import MOST_CARD_BYTES, Field, Label, MachineMeasurement, decode_measurement
from clusterai.protocol.signing import signed_by
from clusterai.protocol.statements import U40, AddressBytes, DigestBytes, SignatureBytes

MOST_MEASURED = 8
MOST_ATTESTATIONS = 16


class Attestation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`attestor` says that `label` holds for the owner `subject` and its machines, such as `soc2-type2`; whom a renter believes is its own affair.

    Attributes:
        document: digest of what says so at length; zeros where nothing does.
    """

    attestor: AddressBytes
    subject: AddressBytes
    label: Label
    document: DigestBytes
    issued_s: U40
    expires_s: U40
    signature: SignatureBytes

    def signing_digest(self, network: Domain) -> Digest:
        """What the attestor's own key signs: these fields with an empty signature, under the network's domain."""
        return typed_digest(network.separator(), digest(msgspec.structs.replace(self, signature=bytes(65))))


class Card(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Of one machine.

    Attributes:
        measured: of each validator its newest, in the order of their addresses.
        written_s: when it was put together.
        belonging: by whom the account `operator` is owned, if it says so: `belonging.owner_of` tells whether that holds.
    """

    operator: AddressBytes
    node: AddressBytes
    claims: Claims
    measured: Annotated[tuple[Measured, ...], Meta(max_length=MOST_MEASURED)]
    attestations: Annotated[tuple[Attestation, ...], Meta(max_length=MOST_ATTESTATIONS)]
    written_s: U40
    belonging: Belonging | None = None


def attested(card: Card, network: Domain, now_s: float) -> dict[tuple[str, Address], int]:
    """What holds of the card's account, or of the owner that it belongs to, by label and attestor, until when: signed for it, begun and not over."""
    owner = owner_of(card.belonging, Address(card.operator), network, now_s)
    until_s = {Address(card.operator): 2**40}
    if owner is not None and card.belonging is not None:
        # Said of the owner, it is said of its machine for as long as both say that it is its.
        until_s[owner] = card.belonging.expires_s
    found: dict[tuple[str, Address], int] = {}
    for it in card.attestations:
        ends_s = min(it.expires_s, until_s.get(Address(it.subject), 0))
        if it.issued_s <= now_s < ends_s:
            key = it.label, Address(it.attestor)
            if signed_by(key[1], it.signing_digest(network), it.signature):
                found[key] = max(ends_s, found.get(key, 0))
    return found


class Line(msgspec.Struct, frozen=True):
    """One field as people are shown it: claimed by the owner, or measured by whom and when."""

    name: str
    value: str
    kind: str
    by: str
    at_s: int
    note: str


def decode_card(data: bytes) -> Card:
    """
    Raises:
        Malformed: not a card, or one whose measurements or findings aren't what they should be.
    """
    card = canonical.decode(data, Card, MOST_CARD_BYTES)
    for measured in card.measured:
        said = decode_measurement(measured.measurement)
        decode_findings(measured.findings)
        if said.node != card.node or canonical.content_digest(measured.findings) != said.findings:
            raise Malformed("a measurement of another machine, or with findings that aren't its own")
    return card


def with_measured(card: Card, new: Measured, now_s: int) -> Card:
    """The card with one more; of each validator the newest stays, and of more than `MOST_MEASURED` the oldest go."""
    by = {decode_measurement(it.measurement).validator: it for it in (*card.measured, new)}
    newest = sorted(by.values(), key=lambda it: -decode_measurement(it.measurement).at_s)[:MOST_MEASURED]
    ordered = sorted(newest, key=lambda it: decode_measurement(it.measurement).validator)
    return msgspec.structs.replace(card, measured=tuple(ordered), written_s=now_s)


def lines(card: Card) -> list[Line]:
    """Every field with where it comes from; what several validators found stands there several times."""
    owner, claims = Address(card.operator).hex(), card.claims
    said = {
        "hardware": claims.hardware,
        "processor": claims.processor,
        "cores": str(claims.cores),
        "cpu_milli": str(claims.cpu_milli),
        "memory_bytes": str(claims.memory_bytes),
        "disk_bytes": str(claims.disk_bytes),
        "region": claims.region,
        # Zero is what an owner says who doesn't know it: no claim.
        "bandwidth_kbps": str(claims.bandwidth_kbps or ""),
        **{
            f"gpu_{at}": f"{it.name} {it.uuid} {it.memory_bytes}".strip() for at, it in enumerate(claims.gpus)
        },
    }
    found = [
        Line(name, value, "claimed", f"0x{owner}", card.written_s, "")
        for name, value in said.items()
        if value
    ]
    for measured in card.measured:
        statement = decode_measurement(measured.measurement)
        by = f"0x{Address(statement.validator).hex()}"
        for row in decode_findings(measured.findings).found:
            kind = "measured" if row.found is not None else "not measured"
            found.append(
                Line(
                    row.name, "" if row.found is None else str(row.found), kind, by, statement.at_s, row.note
                )
            )
        found += [Line(name, value, "measured", by, statement.at_s, "") for name, value in _said(statement)]
    for it in card.attestations:
        by = f"0x{Address(it.attestor).hex()}"
        found.append(Line(it.label, f"until {it.expires_s}", "attested", by, it.issued_s, ""))
    if (it := card.belonging) is not None:
        by = f"0x{Address(it.owner).hex()}"
        found.append(Line("belongs_to", by, "declared", by, it.issued_s, f"until {it.expires_s}"))
    return found


def _said(statement: MachineMeasurement) -> list[tuple[str, str]]:
    """What stands in the measurement and in no finding."""
    found: list[tuple[str, str]] = []
    if statement.fields & Field.RELIABILITY:
        found.append(("reliability_ppm", str(statement.reliability_ppm)))
    if statement.fields & Field.REGION:
        found.append(("region", statement.region))
    if statement.fields & Field.COORDINATE:
        place = (statement.x_us, statement.y_us, statement.z_us, statement.height_us)
        found.append(("coordinate_us", " ".join(map(str, place))))
    return found
