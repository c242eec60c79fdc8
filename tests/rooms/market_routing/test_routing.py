"""Routing as transcripts: who is chosen, who is not and why, who is let back in."""

from collections.abc import Callable, Container

from hypothesis import given
from hypothesis import strategies as st

from clusterai.market.core.routing import NoPick, Pick, Preference, Routing
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Announce, ModelOffer

MODEL = Digest(b"m" * 32)
ANY = Preference()


def who(letter: str) -> Address:
    return Address(letter.encode() * 20)


def offer(price: int = 10, slots: int = 4) -> ModelOffer:
    return ModelOffer(MODEL, "tiny", price, price, slots)


def routing(**prices: int) -> Routing:
    table = Routing()
    for name, price in prices.items():
        table.linked(who(name))
        table.announced(who(name), Announce((offer(price),), 0, 0, False))
    return table


def afforded(provider: Address, offer: ModelOffer) -> bool:
    return True


def choose(
    table: Routing,
    now_s: float = 100.0,
    draw: int = 0,
    preference: Preference = ANY,
    exclude: Container[Address] = frozenset(),
    affords: Callable[[Address, ModelOffer], bool] = afforded,
) -> Pick | NoPick:
    return table.choose(MODEL, preference, exclude, affords, draw, now_s)


def chosen(table: Routing, now_s: float = 100.0, draw: int = 0, preference: Preference = ANY) -> Address:
    found = choose(table, now_s, draw, preference)
    assert isinstance(found, Pick)
    return found.provider


def nobody(
    table: Routing,
    now_s: float = 100.0,
    preference: Preference = ANY,
    exclude: Container[Address] = frozenset(),
    affords: Callable[[Address, ModelOffer], bool] = afforded,
) -> NoPick:
    found = choose(table, now_s, 0, preference, exclude, affords)
    assert isinstance(found, NoPick)
    return found


def test_the_cheaper_of_two_equals_wins_whatever_is_drawn():
    """With two providers both are always candidates, and price decides."""
    table = routing(a=10, b=20)
    assert {chosen(table, draw=draw) for draw in range(10)} == {who("a")}


def test_a_loaded_provider_loses_to_an_idle_one_at_the_same_price():
    """Load counts as waiting time."""
    table = routing(a=10, b=10)
    for _ in range(4):
        table.started(who("a"))
    assert chosen(table) == who("b")


def test_a_slow_provider_loses_to_a_quick_one():
    """Measured first-token time moves the score."""
    table = routing(a=10, b=10)
    for _ in range(5):
        table.succeeded(who("a"), 3.0)
        table.succeeded(who("b"), 0.1)
    assert chosen(table) == who("b")


def test_sort_by_price_ignores_latency():
    """A requester who sorts by price gets the cheapest candidate."""
    table = routing(a=10, b=11)
    for _ in range(9):
        table.succeeded(who("a"), 9.0)
    assert chosen(table) == who("b")
    assert chosen(table, preference=Preference(sort="price")) == who("a")


def test_a_failed_provider_is_suspended_and_let_back_in_by_itself_on_probation():
    """After its suspension it gets one order at a time until one succeeds."""
    table = routing(a=10)
    table.failed(who("a"), "stalled", 100.0)
    refused = nobody(table, 101.0)
    assert refused.reason == "suspended"
    assert 0 < refused.retry_after_s <= 2
    assert choose(table, 102.0) == Pick(who("a"), offer())
    table.started(who("a"))
    assert nobody(table, 102.0).reason == "busy"
    table.ended(who("a"))
    table.succeeded(who("a"), 0.2)
    table.started(who("a"))
    assert isinstance(choose(table, 102.0), Pick)


def test_failures_in_a_row_double_the_suspension_up_to_a_limit():
    """A provider that always fails costs one try in five minutes."""
    table = routing(a=10)
    now_s = 0.0
    pauses: list[float] = []
    for _ in range(12):
        table.failed(who("a"), "stalled", now_s)
        pauses.append(nobody(table, now_s).retry_after_s)
        now_s += pauses[-1]
    assert pauses[:4] == [2, 4, 8, 16]
    assert pauses[-1] == 300


def test_orders_that_fail_together_count_as_one_failure():
    """A link that dies under ten orders suspends for two seconds, not for half an hour."""
    table = routing(a=10)
    for _ in range(10):
        table.failed(who("a"), "unlinked", 50.0)
    assert nobody(table, 50.0).retry_after_s == 2


def test_coming_back_does_not_reset_a_suspension():
    """A provider can't flap its way out of being suspended."""
    table = routing(a=10)
    table.unlinked(who("a"))
    table.failed(who("a"), "unlinked", 50.0)
    table.linked(who("a"))
    table.announced(who("a"), Announce((offer(),), 0, 0, False))
    assert nobody(table, 51.0).reason == "suspended"
    assert isinstance(choose(table, 52.0), Pick)


def test_busy_providers_say_when_to_come_back():
    """Retry-After is the earliest moment at which one of them may be free."""
    table = routing(a=10, b=10)
    table.busy(who("a"), 107.0)
    table.busy(who("b"), 103.0)
    found = nobody(table, 100.0)
    assert (found.reason, found.retry_after_s) == ("busy", 3.0)


def test_each_reason_for_nobody_is_named():
    """A requester learns whether the model is absent, ruled out, too dear or unfunded."""
    table = routing(a=10)
    assert nobody(Routing()).reason == "absent"
    assert nobody(table, exclude={who("a")}).reason == "unwanted"
    assert nobody(table, preference=Preference(only=(who("b"),))).reason == "unwanted"
    assert nobody(table, preference=Preference(most_output_wei=9)).reason == "unwanted"
    assert nobody(table, affords=lambda _provider, _offer: False).reason == "unfunded"
    table.announced(who("a"), Announce((offer(),), 0, 0, True))
    assert nobody(table).reason == "busy"
    table.withdrew(who("a"), MODEL)
    assert nobody(table).reason == "absent"


def test_strangers_frames_change_nothing():
    """Announcements and results of a provider that isn't linked are dropped."""
    table = Routing()
    table.announced(who("x"), Announce((offer(),), 0, 0, False))
    table.succeeded(who("x"), 1.0)
    table.failed(who("x"), "?", 0.0)
    table.ended(who("x"))
    assert table.providers == {}


@given(st.integers(0, 2**256 - 1), st.integers(1, 30))
def test_any_draw_gives_a_usable_provider(draw: int, count: int):
    """Whatever number is drawn, the pick is one of those who serve the model and aren't excluded."""
    table = Routing()
    names = [Address(bytes([i]) * 20) for i in range(count + 1)]
    for name in names:
        table.linked(name)
        table.announced(name, Announce((offer(),), 0, 0, False))
    pick = choose(table, draw=draw, exclude={names[0]})
    assert isinstance(pick, Pick)
    assert pick.provider in names[1:]


def test_load_spreads_over_equal_providers():
    """A thousand orders over ten equal providers leave none with more than twice its share."""
    table = routing(**dict.fromkeys("abcdefghij", 10))
    state = 12345
    for _ in range(1000):
        state = state * 6364136223846793005 + 1442695040888963407 & (2**64 - 1)
        table.started(chosen(table, draw=state >> 20))
    assert max(standing.ours for standing in table.providers.values()) <= 200
