"""Whether work is taken: hours over midnight and over changes of the clock, use by others, and the owner's word."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from clusterai.node.core.willing import DAY_MINUTES, Hours, Load, Quiet, Willing, Window, window

ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia")
windows = st.builds(
    Window,
    st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))),
    st.integers(0, DAY_MINUTES - 1),
    st.integers(0, DAY_MINUTES - 1),
)


def _hours(found: list[Window], zone: str) -> Hours:
    return Hours(tuple(found), ZoneInfo(zone), zone)


hours = st.builds(_hours, st.lists(windows, min_size=1, max_size=3), st.sampled_from(ZONES))
# Both changes of the clock in each of the zones lie in here, and so does the day that Samoa left out (2011).
times = st.one_of(st.integers(1_320_000_000, 1_330_000_000), st.integers(1_770_000_000, 1_800_000_000))


def at(zone: str, text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def nights(zone: str = "Europe/Berlin", *days: str) -> Hours:
    chosen = days or ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    return Hours((window(chosen, "22:00", "06:00"),), ZoneInfo(zone), zone)


@given(hours, times)
def test_a_window_is_the_minutes_that_it_names(found: Hours, now_s: int):
    """Open means: the wall clock's minute is one of those that a window has, counted from the midnight it begins after."""
    local = datetime.fromtimestamp(now_s, found.zone)
    minute = local.weekday() * DAY_MINUTES + 60 * local.hour + local.minute
    expected = False
    for it in found.windows:
        length = (it.end - it.begin) % DAY_MINUTES or DAY_MINUTES
        for day in it.days:
            expected |= (minute - day * DAY_MINUTES - it.begin) % (7 * DAY_MINUTES) < length
    assert found.are_open(now_s) == expected


@given(hours, times)
def test_between_now_and_the_next_change_nothing_changes(found: Hours, now_s: int):
    """At the told second the hours are the other way round, and a minute before they are still as now."""
    change_s = found.change_s(now_s)
    if change_s is None:
        assert all(found.are_open(now_s + 600 * step) == found.are_open(now_s) for step in range(7 * 144))
        return
    assert now_s < change_s
    assert found.are_open(change_s) != found.are_open(now_s)
    assert found.are_open(max(now_s, change_s - 60)) == found.are_open(now_s)


@given(st.integers(0, DAY_MINUTES - 1), st.sampled_from(ZONES), times)
def test_a_window_that_ends_as_it_begins_is_a_whole_day(begin: int, zone: str, now_s: int):
    """From 08:00 to 08:00 on every day is always."""
    assert Hours((Window(tuple(range(7)), begin, begin),), ZoneInfo(zone), zone).are_open(now_s)


def test_a_night_belongs_to_the_day_on_which_it_begins():
    """Friday's night goes on into Saturday; Saturday's own, which isn't chosen, doesn't begin."""
    friday = nights("Europe/Berlin", "fri")
    assert not friday.are_open(at("Europe/Berlin", "2026-01-09T05:59"))
    assert friday.are_open(at("Europe/Berlin", "2026-01-09T22:00"))
    assert friday.are_open(at("Europe/Berlin", "2026-01-10T05:59:59"))
    assert not friday.are_open(at("Europe/Berlin", "2026-01-10T06:00"))
    assert not friday.are_open(at("Europe/Berlin", "2026-01-10T23:00"))


def test_nights_keep_to_the_wall_clock_when_it_is_changed():
    """The night to summer time has seven hours and that to winter time nine; both end at six o'clock."""
    for evening, morning, length in (
        ("2026-03-28T22:00", "2026-03-29T06:00", timedelta(hours=7)),
        ("2026-10-24T22:00", "2026-10-25T06:00", timedelta(hours=9)),
    ):
        begin, end = at("Europe/Berlin", evening), at("Europe/Berlin", morning)
        assert end - begin == length.total_seconds()
        assert nights().change_s(begin - 60) == begin
        assert nights().change_s(begin) == end


def test_an_hour_that_is_left_out_opens_with_the_hour_behind_it():
    """02:30 doesn't come on the last Sunday of March in Berlin: what begins then begins at 03:00."""
    found = Hours((window(("sun",), "02:30", "04:00"),), ZoneInfo("Europe/Berlin"), "Europe/Berlin")
    before = at("Europe/Berlin", "2026-03-29T01:59")
    assert found.change_s(before) == at("Europe/Berlin", "2026-03-29T03:00")


def test_an_hour_that_comes_twice_is_open_twice():
    """Until 02:30 means both of them on the last Sunday of October."""
    found = Hours((window(("sun",), "01:00", "02:30"),), ZoneInfo("Europe/Berlin"), "Europe/Berlin")
    first, again = (at("Europe/Berlin", "2026-10-25T02:15", fold) for fold in (0, 1))
    assert again - first == 3600
    assert found.are_open(first)
    assert found.are_open(again)
    assert not found.are_open(first + 20 * 60)


def test_the_hours_say_their_zone():
    """What people read names days and time zone."""
    assert str(nights("UTC", "fri", "sat")) == "22:00-06:00 fri,sat (UTC)"


QUIET = Quiet(most_foreign=0.25, after_s=300, input_s=60)


def test_only_an_unused_machine_works_and_only_after_a_while():
    """Use by others pauses at once; work is taken again when it has been quiet for long enough."""
    willing = Willing(quiet=QUIET)

    def causes(now_s: float, load: Load | None) -> list[str]:
        return [it.cause for it in willing.pauses(now_s, paused=False, load=load)]

    assert causes(0, None) == ["use"]
    assert causes(1, Load(0.1)) == ["use"]
    assert causes(300, Load(0.1)) == ["use"]
    assert causes(301, Load(0.1)) == []
    assert causes(302, Load(0.3)) == ["use"]
    assert causes(303, Load(0.1)) == ["use"]
    assert causes(603, Load(0.1, input_s=61)) == []
    assert causes(604, Load(0.1, input_s=59)) == ["use"]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=50))
def test_the_reasons_only_change_when_something_does(looks: list[tuple[float, float]]):
    """What is said holds no number that moves by itself: gateways hear of a pause once."""
    willing, now = Willing(quiet=QUIET), 0.0
    told: set[str] = set()
    for step, foreign in looks:
        now += step
        told |= {it.said for it in willing.pauses(now, paused=False, load=Load(foreign))}
    assert len(told) <= 2


def test_a_clock_that_was_set_back_does_not_pause_for_long():
    """After the clock fell back by a day, the wait begins anew and lasts as long as it always does."""
    willing = Willing(quiet=QUIET)
    willing.pauses(100_000, paused=False, load=Load(0.0))
    assert willing.pauses(10_000, paused=False, load=Load(0.0))
    assert not willing.pauses(10_300, paused=False, load=Load(0.0))


def test_every_reason_is_told():
    """A pause by hand, outside the hours, while others use the machine: three reasons, each with its cure."""
    noon = datetime(2026, 1, 9, 12, tzinfo=UTC).timestamp()
    found = Willing(nights("UTC"), QUIET).pauses(noon, paused=True, load=Load(0.9))
    assert [it.cause for it in found] == ["operator", "hours", "use"]
    assert all(it.cure for it in found)
