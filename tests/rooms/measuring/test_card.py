"""A machine's card: who says what, under one digest; forged, foreign and own findings don't get on it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.ledger.core.calls import Submit, UpdateCard
from clusterai.node.adapters.carding import Carding, card_digest, read_card
from clusterai.protocol import canonical
from clusterai.protocol.belonging import belong
from clusterai.protocol.canonical import Malformed, content_digest
from clusterai.protocol.cards import (
    MOST_MEASURED,
    Attestation,
    Card,
    attested,
    decode_card,
    lines,
    with_measured,
)
from clusterai.protocol.ids import Address
from clusterai.protocol.measuring import Finding, Findings, Measured
from clusterai.protocol.offers import Field, MachineMeasurement, decode_measurement, signed_digest
from clusterai.protocol.signing import Key
from clusterai.runtime.machine import Linked, Send, Unlinked
from tests.rooms.measuring.machine_played import claims
from tests.rooms.measuring.measured_world import BEGIN_S, NETWORK, key

OWNER, NODE, EYE, AUDITOR = (key(number) for number in (61, 62, 63, 64))
DAY_S = 86_400


def measured(by: Key = EYE, node: Key = NODE, at_s: int = BEGIN_S, cpu_milli: int = 2_000) -> Measured:
    found = (
        Finding("cpu_milli", 2_000, cpu_milli, ""),
        Finding("gpu_0_mops_per_s", None, None, "not measured"),
    )
    findings = canonical.encode(Findings(node.address, by.address, 1, at_s, 7_000, claims(), found))
    statement = MachineMeasurement(
        node=node.address,
        validator=by.address,
        serial=7,
        fields=int(Field.CPU | Field.RELIABILITY),
        hardware="",
        cpu_milli=cpu_milli,
        memory_bytes=0,
        gpu="",
        gpus=0,
        region="",
        bandwidth_kbps=0,
        reliability_ppm=998_000,
        x_us=0,
        y_us=0,
        z_us=0,
        height_us=0,
        links_per_s_milli=380_000,
        links_at_once_per_s_milli=700_000,
        findings=content_digest(findings),
        at_s=at_s,
    )
    return Measured(canonical.encode(statement), by.sign(signed_digest(statement, NETWORK)), findings)


def blank() -> Card:
    return Card(OWNER.address, NODE.address, claims(), (), (), BEGIN_S)


class Desk:
    """A node's card with a clock and a chain that a test holds."""

    def __init__(self, folder: Path, *, offered: bool = False) -> None:
        self.now_s = float(BEGIN_S)
        self.calls: list[Any] = []
        self.folder = folder
        self.carding = Carding(
            folder,
            OWNER.address,
            NODE.address,
            NETWORK,
            claims,
            lambda hot, validator: hot == validator == EYE.address,
            self.calls.append,
            lambda: self.now_s,
            offered,
        )


def test_a_card_says_of_every_field_whether_it_is_claimed_or_measured() -> None:
    """By whom, and since when; what nobody could measure is said to be so."""
    rows = {(it.name, it.kind): it for it in lines(with_measured(blank(), measured(), BEGIN_S + 1))}
    assert rows["cpu_milli", "claimed"].by == f"0x{OWNER.address.hex()}"
    assert rows["cpu_milli", "measured"].by == f"0x{EYE.address.hex()}"
    assert rows["cpu_milli", "measured"].at_s == BEGIN_S
    assert rows["reliability_ppm", "measured"].value == "998000"
    assert rows["gpu_0_mops_per_s", "not measured"].value == ""


@pytest.mark.parametrize(("kbps", "shown"), [(0, []), (100_000, ["100000"])])
def test_a_bandwidth_that_the_owner_does_not_know_is_no_claim(kbps: int, shown: list[str]) -> None:
    """Else it stood as 0 beside what a validator measured."""
    card = msgspec.structs.replace(blank(), claims=msgspec.structs.replace(claims(), bandwidth_kbps=kbps))
    assert [it.value for it in lines(card) if it.name == "bandwidth_kbps"] == shown


def test_the_card_lies_there_and_its_digest_goes_to_the_registry_once_a_day(tmp_path: Path) -> None:
    """A card that changes more often waits; one that stays costs nothing."""
    desk = Desk(tmp_path)
    desk.carding.hear(measured())
    (call,) = desk.calls
    digest = card_digest(tmp_path)
    assert digest is not None
    assert call.call == UpdateCard(digest)
    desk.now_s += 60
    desk.carding.hear(measured(at_s=BEGIN_S + 60))
    assert len(desk.calls) == 1
    desk.now_s += DAY_S
    desk.carding.hear(measured(at_s=BEGIN_S + 60 + DAY_S))
    assert len(desk.calls) == 2
    card = read_card(tmp_path)
    assert card is not None
    assert [decode_measurement(it.measurement).at_s for it in card.measured] == [BEGIN_S + 60 + DAY_S]


@pytest.mark.parametrize(
    "wrong",
    [
        measured(by=AUDITOR),
        measured(node=OWNER),
        msgspec.structs.replace(measured(), signature=bytes(65)),
        msgspec.structs.replace(measured(), findings=measured(cpu_milli=9_000).findings),
        Measured(b"", bytes(65), b""),
    ],
)
def test_what_does_not_belong_on_it_does_not_get_there(tmp_path: Path, wrong: Measured) -> None:
    """By one who wasn't drawn, of another machine, forged, with other findings, or nonsense."""
    desk = Desk(tmp_path)
    desk.carding.hear(wrong)
    assert read_card(tmp_path) is None
    assert desk.calls == []


def test_a_card_has_an_end() -> None:
    """Of many validators the newest few stay."""
    card = blank()
    for number in range(MOST_MEASURED + 4):
        card = with_measured(card, measured(by=key(100 + number), at_s=BEGIN_S + number), BEGIN_S)
    assert len(card.measured) == MOST_MEASURED
    assert min(decode_measurement(it.measurement).at_s for it in card.measured) == BEGIN_S + 4
    assert decode_card(canonical.encode(card)) == card


def test_a_card_with_anothers_measurement_is_malformed() -> None:
    """Whoever reads a card needn't ask whether its parts belong together."""
    bad = msgspec.structs.replace(blank(), measured=(measured(node=OWNER),))
    with pytest.raises(Malformed):
        decode_card(canonical.encode(bad))


def attestation(**changes: Any) -> Attestation:
    bare = Attestation(
        AUDITOR.address, OWNER.address, "soc2-type2", bytes(32), BEGIN_S, BEGIN_S + DAY_S, bytes(65)
    )
    bare = msgspec.structs.replace(bare, **changes)
    return msgspec.structs.replace(bare, signature=AUDITOR.sign(bare.signing_digest(NETWORK)))


def test_an_attestation_counts_while_it_holds_for_whom_it_is_about() -> None:
    """Not for another owner, not before or after its time, not with another's signature or under another label."""
    forged = msgspec.structs.replace(attestation(), attestor=EYE.address)
    renamed = msgspec.structs.replace(attestation(), label="iso27001")
    other = attestation(subject=NODE.address, label="iso27001")
    card = msgspec.structs.replace(blank(), attestations=(attestation(), other, forged, renamed))
    key = "soc2-type2", AUDITOR.address
    assert attested(card, NETWORK, BEGIN_S) == {key: BEGIN_S + DAY_S}
    assert attested(card, NETWORK, BEGIN_S - 1) == {}
    assert attested(card, NETWORK, BEGIN_S + DAY_S) == {}


def test_what_is_attested_of_an_owner_holds_of_the_machines_that_belong_to_it() -> None:
    """For as long as both say so, and not of a machine that says it alone."""
    machine, key_of = key(77), ("soc2-type2", AUDITOR.address)
    said = belong(OWNER, machine, NETWORK, BEGIN_S, BEGIN_S + 600)
    alone = belong(key(78), machine, NETWORK, BEGIN_S, BEGIN_S + 600)
    card = msgspec.structs.replace(
        blank(), operator=machine.address, attestations=(attestation(),), belonging=said
    )
    assert attested(card, NETWORK, BEGIN_S) == {key_of: BEGIN_S + 600}
    assert attested(card, NETWORK, BEGIN_S + 600) == {}
    for belonging in (None, alone, msgspec.structs.replace(alone, owner=OWNER.address)):
        assert attested(msgspec.structs.replace(card, belonging=belonging), NETWORK, BEGIN_S) == {}


def test_an_attestation_is_told_as_soon_as_it_lies_there(tmp_path: Path) -> None:
    """And taken back as soon as it is taken away; the Registry hears of both at once, and of nothing while nothing changes."""
    desk = Desk(tmp_path, offered=True)
    desk.carding.hear(measured())
    desk.carding.links(Linked(Address(b"\x31" * 20)))
    desk.carding.look()
    told = len(desk.calls)
    (tmp_path / "attestations").mkdir()
    file = tmp_path / "attestations" / "soc2.bin"
    file.write_bytes(canonical.encode(attestation()))
    desk.carding.look()
    desk.carding.look()
    first = card_digest(tmp_path)
    file.unlink()
    desk.now_s += 1
    desk.carding.look()
    last = card_digest(tmp_path)
    assert first is not None
    assert last is not None
    submitted = [it.call for it in desk.calls[told:] if isinstance(it, Submit)]
    assert submitted == [UpdateCard(first), UpdateCard(last)]
    sent: list[Any] = [it for it in desk.calls[told:] if isinstance(it, Send)]
    assert [len(decode_card(it.frame.card).attestations) for it in sent] == [1, 0]


def test_attestations_beside_the_card_are_on_it(tmp_path: Path) -> None:
    """The owner puts them there; one that is none is passed over."""
    folder = tmp_path / "attestations"
    folder.mkdir()
    (folder / "soc2.bin").write_bytes(canonical.encode(attestation()))
    (folder / "other.bin").write_bytes(b"nothing")
    desk = Desk(tmp_path)
    desk.carding.hear(measured())
    card = read_card(tmp_path)
    assert card is not None
    assert [it.label for it in card.attestations] == ["soc2-type2"]


def test_what_gateways_are_told_is_the_card_that_lies_there_and_stands_in_the_registry(
    tmp_path: Path,
) -> None:
    """An attestation that came since the last measurement changes all three."""
    desk = Desk(tmp_path, offered=True)
    desk.carding.hear(measured())
    (tmp_path / "attestations").mkdir()
    (tmp_path / "attestations" / "soc2.bin").write_bytes(canonical.encode(attestation()))
    desk.now_s += DAY_S
    desk.carding.links(Linked(Address(b"\x31" * 20)))
    digest = card_digest(tmp_path)
    assert digest is not None
    sent: list[Any] = [it for it in desk.calls if isinstance(it, Send)]
    assert [content_digest(it.frame.card) for it in sent] == [digest]
    assert [it.call for it in desk.calls if isinstance(it, Submit)][1:] == [UpdateCard(digest)]
    assert len(decode_card(sent[0].frame.card).attestations) == 1


def test_gateways_are_told_the_card_when_they_link_and_when_it_changes(tmp_path: Path) -> None:
    """With the attestations that lie there by then; a gateway that went is told no more, and a machine that isn't offered tells nobody."""
    desk = Desk(tmp_path, offered=True)
    gateway, other = Address(bytes([7]) * 20), Address(bytes([8]) * 20)
    desk.carding.links(Linked(gateway))
    desk.carding.links(Linked(other))
    desk.carding.links(Unlinked(other))
    (tmp_path / "attestations").mkdir()
    (tmp_path / "attestations" / "soc2.bin").write_bytes(canonical.encode(attestation()))
    desk.carding.hear(measured())
    sent: list[Any] = [it for it in desk.calls if isinstance(it, Send)]
    assert [it.to for it in sent] == [gateway, other, gateway]
    cards = [decode_card(it.frame.card) for it in sent]
    assert [(len(it.measured), len(it.attestations)) for it in cards] == [(0, 0), (0, 0), (1, 1)]
    quiet = Desk(tmp_path)
    quiet.carding.links(Linked(gateway))
    assert quiet.calls == []
