"""The endpoints of rentals against strangers' requests: every limit, holds and rentals of others, and what ended."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from clusterai.sdk import ApiError, Client
from clusterai.sdk.offers import Offers
from clusterai.sdk.offershapes import PlanRequest, RentalPlan, Wanted
from clusterai.sdk.rentals import PATH, Rentals
from clusterai.sdk.rentalshapes import Rental, RentRequest, Setup
from tests.rooms.renting.rented import RentBed

WISH = PlanRequest(nodes=2, duration_s=600, need=Wanted(cpu_milli=1000, memory_bytes=2 << 30))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RentBed]:
    it = RentBed(tmp_path_factory.mktemp("rentals"), machines=2)
    with it:
        yield it


@pytest.fixture
def bed(shared: RentBed) -> Iterator[RentBed]:
    shared.offer_all()
    yield shared
    with Client(shared.url, shared.key) as client:
        for it in Rentals(client).list():
            Rentals(client).release(it.id)
    shared.until(lambda: shared.standing() == 2, "machines given back")


@pytest.fixture
def client(bed: RentBed) -> Iterator[Client]:
    with Client(bed.url, bed.key) as client:
        yield client


@pytest.fixture
def plan(client: Client) -> Iterator[RentalPlan]:
    found = Offers(client).plan(WISH)
    yield found
    client.ask("DELETE", f"/v1/clusterai/rentals/plan/{found.hold}", missing_ok=True)


def status(client: Client, method: str, path: str, body: Any) -> int:
    """Of whatever is answered."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    try:
        return client.ask(
            method, path, content=content, headers={"Content-Type": "application/json"}
        ).status_code
    except ApiError as error:
        return error.status


def rented(client: Client, plan: RentalPlan) -> Rental:
    return Rentals(client).rent(RentRequest(hold=plan.hold, plan=WISH))


@pytest.mark.parametrize(
    "change",
    [
        {"hold": "0x12"},
        {"plan": {"nodes": 0, "duration_s": 600}},
        {"plan": {"nodes": 2, "duration_s": 59}},
        {"setup": {"image": "ubuntu"}},
        {"setup": {"cpu_milli": 999}},
        {"setup": {"cpu_milli": 1_001}},
        {"setup": {"memory_bytes": (2 << 30) + 1}},
        {"setup": {"memory_bytes": (512 << 20) - 1}},
        {"setup": {"gpus": 65}},
        {"setup": {"gpus": 1}},
        {"setup": {"env": {"A-B": "x"}}},
        {"setup": {"env": {"A": "x" * 4097}}},
        {"setup": {"env": {f"V{at}": "" for at in range(65)}}},
        {"key": "0x" + "1" * 63},
        {"more": 1},
    ],
)
def test_what_is_beyond_a_limit_is_refused_and_books_nothing(
    client: Client, plan: RentalPlan, change: dict[str, Any]
):
    """400, and the plan is still held."""
    body = {"hold": plan.hold, "plan": msgspec.to_builtins(WISH)} | change
    assert status(client, "POST", PATH, body) == 400
    assert Rentals(client).list() == [] or all(it.state == "ended" for it in Rentals(client).list())


def test_bodies_that_are_none_or_too_long_are_refused(client: Client):
    """Neither is read as a wish."""
    assert status(client, "POST", PATH, b"{") == 400
    assert status(client, "POST", PATH, b" " * (128 * 1024 + 1)) == 413


def test_a_plan_of_others_or_of_nobody_is_not_booked(bed: RentBed, client: Client, plan: RentalPlan):
    """Knowing a hold's name isn't enough, and a name alone books nothing."""
    with (
        Client(bed.url, bed.ring.create("other")[0]) as stranger,
        pytest.raises(ApiError, match="holds no such plan"),
    ):
        rented(stranger, plan)
    with pytest.raises(ApiError, match="holds no such plan"):
        Rentals(client).rent(RentRequest(hold="0x" + "0" * 64, plan=WISH))


def test_a_plan_is_booked_once(client: Client, plan: RentalPlan):
    """The same hold again is over."""
    rented(client, plan)
    with pytest.raises(ApiError, match="holds no such plan"):
        rented(client, plan)


def test_the_plan_has_to_be_the_one_that_was_held(client: Client, plan: RentalPlan):
    """A wish for another number of machines would replace lost ones by what nobody was shown."""
    other = msgspec.structs.replace(WISH, nodes=1)
    with pytest.raises(ApiError, match="holds 2 machines"):
        Rentals(client).rent(RentRequest(hold=plan.hold, plan=other))


def test_a_rental_is_its_accounts_own(bed: RentBed, client: Client, plan: RentalPlan):
    """Others neither see, extend, enter nor end it."""
    mine = rented(client, plan)
    with Client(bed.url, bed.ring.create("other")[0]) as stranger:
        theirs = Rentals(stranger)
        assert theirs.list() == []
        for act in (
            lambda: theirs.show(mine.id),
            lambda: theirs.release(mine.id),
            lambda: theirs.extend(mine.id, 600),
            lambda: theirs.meet(mine.id, "0x" + "5" * 64),
            lambda: theirs.log(mine.id, 0, 0),
        ):
            with pytest.raises(ApiError, match="no such rental"):
                act()
    assert Rentals(client).show(mine.id).state != "ended"


def test_what_ended_takes_nothing_more(client: Client, plan: RentalPlan):
    """It can be shown, and released again; its token is gone."""
    mine = Rentals(client)
    name = rented(client, plan).id
    mine.release(name)
    again = mine.release(name)
    assert (again.state, again.why, again.token, again.members) == ("ended", "released", "", [])
    for act in (
        lambda: mine.extend(name, 600),
        lambda: mine.meet(name, "0x" + "5" * 64),
        lambda: mine.log(name, 0, 0),
    ):
        with pytest.raises(ApiError, match="ended"):
            act()


def test_time_is_extended_up_to_what_the_account_can_pay_and_a_month(client: Client, plan: RentalPlan):
    """Beyond it is refused, with the sum that is missing."""
    mine = Rentals(client)
    first = rented(client, plan)
    assert mine.extend(first.id, 60).until_s == first.until_s + 60
    with pytest.raises(ApiError, match="29 d 23 h more now, not 30 d"):
        mine.extend(first.id, 30 * 86_400)
    with pytest.raises(ApiError, match="this costs"):
        mine.extend(first.id, 29 * 86_400)
    assert status(client, "POST", f"{PATH}/{first.id}/extend", {"duration_s": 59}) == 400
    assert status(client, "POST", f"{PATH}/{first.id}/extend", {"duration_s": 30 * 86_400 + 1}) == 400


def test_time_is_extended_up_to_what_every_owner_allows(bed: RentBed, client: Client):
    """Told before and when it is asked, refused whole and not cut to it; nothing is booked by the refusal."""
    bed.offer(0, longest_s=3_600)
    bed.offer(1, longest_s=7_200)
    bed.until(lambda: {it["longest_s"]["value"] for it in bed.get("/v1/clusterai/offers")["offers"]} == {3_600, 7_200}, "new offers")  # fmt: skip
    mine = Rentals(client)
    first = rented(client, Offers(client).plan(WISH))
    assert 2_990 <= first.extendable_s <= 3_000
    with pytest.raises(ApiError, match="more now, not 50 min 10 s"):
        mine.extend(first.id, 3_010)
    assert mine.show(first.id).until_s == first.until_s
    again = mine.extend(first.id, 2_980)
    assert again.until_s == first.until_s + 2_980
    assert again.extendable_s <= 60


@pytest.mark.parametrize("query", ["place=65", "place=-1", "place=x", "start=-1", f"start={2**53 + 1}"])
def test_logs_are_asked_within_bounds(client: Client, plan: RentalPlan, query: str):
    """A place or a byte that can't be."""
    found = rented(client, plan)
    assert status(client, "GET", f"{PATH}/{found.id}/logs?{query}", b"") == 400


def test_a_machine_that_is_not_there_has_no_log(client: Client, plan: RentalPlan):
    """Two machines have places 0 and 1."""
    found = rented(client, plan)
    assert status(client, "GET", f"{PATH}/{found.id}/logs?place=2", b"") == 404


def test_more_than_the_account_has_is_not_booked(client: Client, plan: RentalPlan):
    """All of the booked time has to be there, not its first hour alone."""
    long = msgspec.structs.replace(WISH, duration_s=30 * 86_400)
    with pytest.raises(ApiError, match="book less"):
        Rentals(client).rent(RentRequest(hold=plan.hold, plan=long, setup=Setup()))
