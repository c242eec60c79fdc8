"""The Meter charges in one journal and the rental counts in another: a kill between them is made good at the next start."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from clusterai.audit.core.timelock import Evidence
from clusterai.gateway.adapters.archive import Archive
from clusterai.gateway.adapters.marketplace import Marketplace
from clusterai.gateway.adapters.rentals import Renting
from clusterai.gateway.config import MarketConfig
from clusterai.gateway.core.moneystate import Charged
from clusterai.gateway.core.rentstate import Close, Ended, Passed, Rented, Seat, Seated
from clusterai.market.core.directory import Directory
from clusterai.protocol import canonical
from clusterai.protocol.ids import Address
from clusterai.protocol.rentals import stay_model
from clusterai.protocol.statements import Receipt
from clusterai.runtime.adapters.journal import SqliteJournal
from tests.rooms.rentals.stage import ACCOUNT, GATEWAY, HOLD, HOT, LEASE, NETWORK, PRICE_WEI, SPEC

SEATS = tuple(Seat(bytes([it]) * 20, bytes([it + 9]) * 20, PRICE_WEI, 0, HOLD) for it in (1, 2, 3))
RENTED = Rented(LEASE, ACCOUNT, SPEC.canonical(), b"wish", SEATS[:2], 2_000, 1_000, bytes(32))
DONE = Ended(LEASE, Close.RELEASED, "", 1_500)


def passed(place: int, number: int, units: int) -> Passed:
    return Passed(LEASE, place, 0, number, units, 10 * units, bytes([number]) * 32, Evidence())


def charged(place: int, generation: int, number: int, units: int, tag: bytes = LEASE) -> Charged:
    order, model = bytes([place, generation, number]).ljust(32, b"o"), stay_model(LEASE, place, generation)
    receipt = Receipt(order, bytes(20), GATEWAY, model, bytes(32), 0, units, 10 * units, 5)
    return Charged(ACCOUNT, receipt, bytes(65), bytes(65), bytes(32), 0, 1_400, tag)


def started(folder: Path, archive: Archive) -> Renting:
    """A gateway's rentals as they are after its start."""

    def nowhere(*_: Any) -> None:
        """To nobody."""

    market = Marketplace(
        folder / "market.db", Directory(), NETWORK, MarketConfig(), "NORMAL", nowhere, nowhere
    )
    nobody: Callable[..., Address | None] = nowhere
    renting = Renting(
        folder / "rentals.db",
        NETWORK,
        "NORMAL",
        market,
        nowhere,
        nowhere,
        lambda _: 0,
        nobody,
        nobody,
        HOT.sign,
        archive,
        ("127.0.0.1", "127.0.0.1"),
    )
    renting.start()
    renting.close()
    market.close()
    return renting


def test_what_only_the_receipts_tell_is_counted_once(tmp_path: Path):
    """Of either place, of the machine that was replaced too; not again at the start after; not what has another tag."""
    journal = SqliteJournal(tmp_path / "rentals.db")
    seated = Seated(LEASE, 1, 1, SEATS[2])
    journal.append(
        [canonical.encode(it) for it in (RENTED, passed(0, 0, 300), passed(1, 0, 300), seated, DONE)]
    )
    journal.close()
    archive = Archive(tmp_path / "archive.db", bytes(32))
    for it in (charged(0, 0, 0, 300), charged(1, 0, 0, 300), charged(1, 0, 1, 7), charged(1, 1, 0, 20)):
        archive.charged(it, None)
    archive.charged(charged(0, 0, 9, 300, tag=b""), None)
    for _ in range(2):
        rental = started(tmp_path, archive).desk.rentals[LEASE]
        assert rental.units == {0: 300, 1: 327}
        assert (rental.paid_wei, rental.intervals) == (6_270, 4)
    archive.close()


def test_what_is_counted_and_has_no_receipt_stays(tmp_path: Path):
    """Rentals of before receipts were kept by what they were for, and archives that were lost, take nothing away."""
    journal = SqliteJournal(tmp_path / "rentals.db")
    journal.append([canonical.encode(it) for it in (RENTED, passed(0, 0, 300), passed(0, 1, 300), DONE)])
    journal.close()
    archive = Archive(tmp_path / "archive.db", bytes(32))
    archive.charged(charged(0, 0, 1, 300), None)
    rental = started(tmp_path, archive).desk.rentals[LEASE]
    assert (rental.units, rental.paid_wei) == ({0: 600}, 6_000)
    archive.close()
