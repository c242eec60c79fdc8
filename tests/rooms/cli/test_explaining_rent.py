"""What a machine's owner is told of its place among offers to renters: each reason with the number that would change it."""

from typing import Any

import msgspec
import pytest

from clusterai.cli.explainrent import reasons
from clusterai.node.config import Config, RentalsConfig
from clusterai.protocol.ids import Address, checksummed
from clusterai.sdk.offershapes import Machine, OfferList, Said
from tests.rooms.cli.test_explaining import CONFIG

TOKEN = 10**9
ME = checksummed(Address(b"\x07" * 20))


@pytest.fixture
def config() -> Config:
    return msgspec.structs.replace(CONFIG, rentals=RentalsConfig(hour_wei=3 * TOKEN))


def said(value: Any) -> Said:
    return Said(value=value, says="claimed", by=ME, age_s=0)


def machine(node: str, price: int, proven: bool = True) -> Machine:
    fields: dict[str, Any] = dict.fromkeys(Machine.__struct_fields__, said(1))
    fields |= {"node": node, "operator": node, "price_wei": said(price * TOKEN), "expires_in_s": 600}
    fields["links_per_s_milli"] = said(40_000) if proven else None
    return Machine(**fields)


def listed(*machines: Machine, more: int = 0) -> OfferList:
    count = len(machines) + more
    return OfferList(offers=list(machines), suitable=count, standing=count, taken=0)


def other(number: int, price: int) -> Machine:
    return machine(checksummed(Address(bytes([number]) * 20)), price)


def test_a_dearer_machine_is_told_below_which_price_it_would_be_asked_first(config: Config):
    """The place before its own, and the first; with the setting that says it."""
    (found,) = reasons(
        config, ME, listed(other(1, 1), other(2, 2), machine(ME, 4), other(3, 9)), is_paused=False
    )
    assert (found.state, found.found) == ("limits", "3rd of 4 by price, 4 CLAI an hour")
    assert found.cure == (
        "below 2 CLAI, 0.5 x yours, it would be 2nd; below 1 CLAI, 0.25 x yours, it would be 1st (`rentals.hour_wei`)"
    )


def test_machines_that_ask_the_same_are_one_step(config: Config):
    """The first place, and no other at the same price."""
    (found,) = reasons(config, ME, listed(other(1, 1), other(2, 1), machine(ME, 4)), is_paused=False)
    assert found.cure == "below 1 CLAI, 0.25 x yours, it would be 1st (`rentals.hour_wei`)"


def test_the_cheapest_or_as_cheap_is_told_so(config: Config):
    """No price of its own would put it before others."""
    (found,) = reasons(config, ME, listed(other(1, 3), machine(ME, 3)), is_paused=False)
    assert (found.state, found.cure) == ("good", "")


def test_a_machine_that_nobody_measured_is_told_who_passes_it_by(config: Config):
    """Its sentinel is what renters ask for."""
    found = reasons(config, ME, listed(machine(ME, 3, proven=False)), is_paused=False)
    assert [it.state for it in found] == ["good", "limits"]
    assert "--measured profile" in found[1].found


def test_a_machine_that_is_not_listed_is_told_where_the_reason_stands(config: Config):
    """Also where there are more than were read."""
    (found,) = reasons(config, ME, listed(other(1, 1), more=500), is_paused=False)
    assert found.found == "the gateway doesn't list it now among the 1 cheapest of 501"
    assert "not_listed" in found.cure


def test_a_machine_that_can_hold_no_cluster_says_why_it_is_not_offered(config: Config):
    """The node's own word, with its cure, instead of a log to be read."""
    why = "there is no /x/bin/python: make install-peers"
    (found,) = reasons(config, ME, listed(), is_paused=False, withheld=(why,))
    assert (found.found, found.cure) == ("it isn't offered to renters", why)


def test_what_is_paused_or_not_lent_has_no_place(config: Config):
    """What pauses it is told elsewhere."""
    offers = listed(machine(ME, 3))
    assert reasons(config, ME, offers, is_paused=True) == []
    assert reasons(config, ME, None, is_paused=False) == []
    assert reasons(CONFIG, ME, offers, is_paused=False) == []
