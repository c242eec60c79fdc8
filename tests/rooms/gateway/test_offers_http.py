"""Offers over links and plans over HTTP, with a real gateway: what is listed, held once, and refused with a reason."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.cli import rentplan
from clusterai.cli.main import run
from clusterai.ledger.adapters.network import save_key
from clusterai.protocol import canonical
from clusterai.protocol.cards import Attestation, Card
from clusterai.protocol.ids import Address, checksummed, hex0x
from clusterai.protocol.measuring import Claims
from clusterai.protocol.offering import Carded, Offered
from clusterai.protocol.offers import MachineOffer, signed_digest
from clusterai.protocol.signing import signed_by
from clusterai.protocol.statements import network_domain
from clusterai.sdk import Client
from clusterai.sdk.client import ApiError
from clusterai.sdk.offers import NotPlaced, Offers
from clusterai.sdk.offershapes import MOST_NODES, MOST_S, PlanRequest, Wanted
from tests.rooms.gateway.bed import TOKEN, Bed

PLAN = "/v1/clusterai/rentals/plan"
OFFERS = "/v1/clusterai/offers"
HOUR_S = 3_600


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with Bed(tmp_path_factory.mktemp("offers"), providers=3, wallets=False) as it:
        yield it


@pytest.fixture
def offers(bed: Bed) -> Iterator[Offers]:
    with Client(bed.url, bed.key) as client:
        yield Offers(client)


class Machines:
    """The stand-ins' machines, offered anew for each test, withdrawn after it."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.domain = network_domain(bed.network.chain_id, bed.network.contracts.registry)
        self.offered: set[int] = set()

    def statement(self, at: int, **changes: Any) -> MachineOffer:
        person = self.bed.people[at]
        now_s = int(time.time())
        fields: dict[str, Any] = {
            "node": person.hot.address,
            "operator": person.owner.address,
            "serial": time.time_ns() // 1_000,
            "hardware": "x86-64-v3",
            "cpu_milli": 4_000,
            "memory_bytes": 2**33,
            "disk_bytes": 2**36,
            "gpu": "",
            "gpus": 0,
            "region": "eu",
            "bandwidth_kbps": 100_000,
            "price_wei": TOKEN * (at + 1),
            "issued_s": now_s,
            "expires_s": now_s + 600,
        }
        return MachineOffer(**(fields | changes))

    def send(self, at: int, statement: MachineOffer) -> None:
        signature = self.bed.people[at].hot.sign(signed_digest(statement, self.domain))

        async def say() -> None:
            self.bed.standins[at].send(Offered(canonical.encode(statement), signature))

        self.bed.run(say())

    def put(self, at: int, **changes: Any) -> Address:
        statement = self.statement(at, **changes)
        self.send(at, statement)
        self.offered.add(at)
        node = checksummed(Address(statement.node))
        self.bed.until(lambda: node in self.listed(), "the offer")
        return Address(statement.node)

    def listed(self) -> list[str]:
        found = self.bed.get(OFFERS)["offers"]
        return [it["node"] for it in found if it["price_wei"]["age_s"] <= 600]

    def withdraw(self) -> None:
        for at in self.offered:
            now_s = int(time.time())
            self.send(at, self.statement(at, issued_s=now_s, expires_s=now_s))
        self.offered.clear()
        self.bed.until(lambda: self.bed.get(OFFERS)["standing"] == 0, "withdrawals")


@pytest.fixture
def machines(bed: Bed) -> Iterator[Machines]:
    it = Machines(bed)
    yield it
    it.withdraw()


def wish(nodes: int = 1, **changes: Any) -> PlanRequest:
    return PlanRequest(nodes=nodes, duration_s=HOUR_S, **changes)


def post(bed: Bed, body: Any, key: str | None = None) -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _, answer = bed.fetch("POST", PLAN, raw, key or bed.key)
    return status, json.loads(answer)


def test_what_stands_is_listed_with_whose_word_it_is(bed: Bed, machines: Machines, offers: Offers):
    """Fields are claimed by the operator, the price binds it, the round trip is the gateway's own; the cheapest stands first."""
    cheap, dear = machines.put(0), machines.put(1)
    found = offers.list()
    assert [it.node for it in found.offers] == [checksummed(cheap), checksummed(dear)]
    first = found.offers[0]
    operator = checksummed(bed.people[0].owner.address)
    assert (first.cpu_milli.value, first.cpu_milli.says, first.cpu_milli.by) == (4_000, "claimed", operator)
    assert (first.price_wei.value, first.price_wei.says) == (TOKEN, "offered")
    assert first.reliability_ppm.says == "assumed"
    assert (first.coordinate, first.links_per_s_milli) == (None, None)
    assert (found.suitable, found.standing, found.taken, found.next) == (2, 2, 0, "")
    bed.until(lambda: offers.list().offers[0].round_trip_us is not None, "a round trip")
    assert offers.list(near_ms=2_000).suitable == 2


def test_a_page_goes_on_where_the_last_ended(machines: Machines, offers: Offers):
    """Every machine once, the cheapest first, also among equal prices."""
    nodes = {checksummed(machines.put(at, price_wei=5)) for at in range(3)}
    first = offers.list(limit=2)
    second = offers.list(limit=2, page=first.next)
    assert [len(first.offers), len(second.offers), second.next] == [2, 1, ""]
    assert {it.node for it in (*first.offers, *second.offers)} == nodes


def test_filters_keep_what_fits(machines: Machines, offers: Offers):
    """By what is claimed; asked to be measured, nothing that is just claimed."""
    machines.put(0)
    large = checksummed(machines.put(1, cpu_milli=64_000, gpu="h100", gpus=8, region="us"))
    for need in (Wanted(gpu="h100"), Wanted(gpus=8), Wanted(cpu_milli=4_001)):
        assert [it.node for it in offers.list(need).offers] == [large]
    assert [it.node for it in offers.list(regions=("us", "asia")).offers] == [large]
    assert offers.list(Wanted(measured=("cpu",))).offers == []


def test_where_nothing_fits_the_cheapest_way_out_is_told(machines: Machines, offers: Offers):
    """What to give up, and what then stands."""
    machines.put(0)
    why = offers.list(Wanted(cpu_milli=4_001)).why_not
    assert why is not None
    assert (why.failing, why.relaxations[0].constraints) == (["cpu"], ["cpu"])
    assert why.relaxations[0].text == "4 cores instead of 4.001"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=501", "limit=x", "near_ms=0", "near_ms=2001", "near_ms=1.0001", "near_ms=nan", "near_ms=1e3",
        "gpus=256", "gpus=-1", "cpu_milli=4294967296", "memory_bytes=9007199254740993", "bandwidth_kbps=1099511627776",
        "reliability_ppm=1000001", "gpu=H100", "gpu=" + "x" * 33, "hardware=a%0a", "region=e%20u", "region=a,,b",
        "region=" + ",".join("a" * 17), "measured=price", "page=1", "page=1-" + "g" * 40, "page=1-" + "0" * 41, "colour=red",
    ],
)  # fmt: skip
def test_a_filter_out_of_range_is_refused(bed: Bed, query: str):
    """Beyond each end, and what nobody knows."""
    status, _, raw = bed.fetch("GET", f"{OFFERS}?{query}")
    assert (status, json.loads(raw)["status"]) == (400, 400)


@pytest.mark.parametrize(
    "query",
    [
        "limit=1", "limit=500", "near_ms=0.001", "near_ms=2000", "gpus=255", "cpu_milli=4294967295", "memory_bytes=9007199254740992",
        "bandwidth_kbps=1099511627775", "reliability_ppm=1000000", "gpu=" + "x" * 32, "region=" + ",".join("abcdefghijklmnop"),
        "measured=cpu,gpu", "page=9999999999999999-" + "f" * 40,
    ],
)  # fmt: skip
def test_a_filter_at_its_end_is_taken(bed: Bed, query: str):
    """Each limit is inside."""
    assert bed.fetch("GET", f"{OFFERS}?{query}")[0] == 200


def test_a_plan_that_is_shown_is_held(bed: Bed, machines: Machines, offers: Offers):
    """The cheapest is taken, priced for its time, and gone from the list until it is given back."""
    node = checksummed(machines.put(0))
    machines.put(1)
    plan = offers.plan(PlanRequest(nodes=1, duration_s=90 * 60))
    assert [it.node for it in plan.machines] == [node]
    assert (plan.price_hour_wei, plan.price_wei) == (TOKEN, TOKEN * 3 // 2)
    assert 50 <= plan.held_s <= 60
    assert node not in [it.node for it in offers.list().offers]
    assert offers.list().taken == 1
    path = f"{PLAN}/{plan.hold}"
    other, _ = bed.ring.create("other")
    assert bed.fetch("DELETE", path, None, other)[0] == 404
    assert bed.fetch("DELETE", path, None, bed.key)[0] == 204
    assert bed.fetch("DELETE", path, None, bed.key)[0] == 404
    assert node in [it.node for it in offers.list().offers]


def test_a_group_is_planned_though_nobody_measured_places(machines: Machines, offers: Offers):
    """It says that how far apart it is isn't known; where a limit on that was asked, there is no such group."""
    for at in range(3):
        machines.put(at)
    plan = offers.plan(wish(2, hold=False))
    assert (len(plan.machines), plan.diameter_us, plan.pairs, plan.hold) == (2, None, 1, "")
    assert offers.list().taken == 0
    with pytest.raises(NotPlaced):
        offers.plan(wish(2, max_rtt_us=1_000, hold=False))


def test_each_wish_has_its_price(machines: Machines, offers: Offers):
    """The toll of a region is what the cheaper machine elsewhere would save."""
    machines.put(0, region="us")
    machines.put(1)
    toll, free = offers.plan(wish(1, regions=("eu",), hold=False)).tolls
    assert (free.constraint, free.saved_wei) == ("duration", 0)
    assert (toll.constraint, toll.price_hour_wei, toll.without_hour_wei) == ("region", 2 * TOKEN, TOKEN)
    assert toll.saved_wei == TOKEN


def test_what_can_not_be_placed_is_told_with_the_cheapest_way_out(machines: Machines, offers: Offers):
    """Numbers that were tried, not guessed."""
    machines.put(0)
    machines.put(1)
    with pytest.raises(NotPlaced) as failed:
        offers.plan(wish(2, max_price_wei=2 * TOKEN))
    why = failed.value.why
    assert why.failing == ["price"]
    assert (why.relaxations[0].text, why.relaxations[0].price_hour_wei) == (
        "1 CLAI more an hour",
        3 * TOKEN,
    )
    assert "1 CLAI more an hour" in failed.value.detail


def test_of_two_who_race_for_the_last_machine_exactly_one_gets_it(bed: Bed, machines: Machines):
    """At the same moment over HTTP, many times: one plan, one refusal with its reason."""
    machines.put(0)
    second, made = bed.ring.create("second")
    bed.fund(made.account, 10 * TOKEN)
    bed.until(lambda: bed.get("/v1/clusterai/account", second)["credit_wei"] >= 10 * TOKEN, "credit")
    for _ in range(8):
        answers: dict[str, tuple[int, Any]] = {}
        gate = threading.Barrier(2)

        def race(
            key: str, gate: threading.Barrier = gate, answers: dict[str, tuple[int, Any]] = answers
        ) -> None:
            gate.wait()
            answers[key] = post(bed, {"nodes": 1, "duration_s": HOUR_S}, key)

        runners = [threading.Thread(target=race, args=(key,)) for key in (bed.key, second)]
        for it in runners:
            it.start()
        for it in runners:
            it.join()
        assert sorted(status for status, _ in answers.values()) == [200, 409]
        (winner,) = (key for key, (status, _) in answers.items() if status == 200)
        assert bed.fetch("DELETE", f"{PLAN}/{answers[winner][1]['hold']}", None, winner)[0] == 204


def test_who_could_not_pay_for_an_hour_holds_nothing(bed: Bed, machines: Machines):
    """402 with the numbers; looking is free."""
    machines.put(0)
    poor, _ = bed.ring.create("poor")
    status, told = post(bed, {"nodes": 1, "duration_s": HOUR_S}, poor)
    assert (status, "1 CLAI" in told["detail"]) == (402, True)
    assert bed.get(OFFERS)["taken"] == 0
    assert post(bed, {"nodes": 1, "duration_s": HOUR_S, "hold": False}, poor)[0] == 200


def test_plans_are_asked_for_with_a_key(bed: Bed):
    """None is 401, and another method 405."""
    assert bed.fetch("POST", PLAN, b"{}")[0] == 401
    status, headers, _ = bed.fetch("GET", PLAN, None, bed.key)
    assert (status, headers["allow"]) == (405, "POST")


BEST = {"nodes": 1, "duration_s": HOUR_S, "hold": False}


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": 0}, {"nodes": MOST_NODES + 1}, {"nodes": "1"}, {"nodes": None}, {"duration_s": 59}, {"duration_s": MOST_S + 1},
        {"max_price_wei": 0}, {"max_price_wei": 10**17 + 1}, {"regions": ["e u"]}, {"regions": ["a"] * 17}, {"near_us": 0},
        {"near_us": 2_000_001}, {"max_rtt_us": 0}, {"max_rtt_us": 2_000_001}, {"max_per_operator": 0},
        {"max_per_operator": 101}, {"us_wei": -1}, {"us_wei": 10**8 + 1}, {"ppm_wei": 10**8 + 1}, {"hold": 1},
        {"need": {"cpu_milli": 2**32}}, {"need": {"memory_bytes": 2**53 + 1}}, {"need": {"gpus": 256}},
        {"need": {"gpu": "x" * 33}}, {"need": {"bandwidth_kbps": 2**40}}, {"need": {"reliability_ppm": 1_000_001}},
        {"need": {"measured": ["price"]}}, {"need": {"measured": ["cpu"] * 10}}, {"need": {"colour": "red"}}, {"colour": "red"},
    ],
)  # fmt: skip
def test_a_wish_out_of_range_is_refused(bed: Bed, changes: dict[str, Any]):
    """One beyond each end, another type, or a field that nobody knows."""
    status, told = post(bed, BEST | changes)
    assert (status, told["type"]) == (400, "urn:clusterai:problem:invalid_request")


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": MOST_NODES}, {"duration_s": 60}, {"duration_s": MOST_S}, {"max_price_wei": 1}, {"max_price_wei": 10**17},
        {"regions": ["a"] * 16}, {"near_us": 2_000_000}, {"max_rtt_us": 2_000_000}, {"max_per_operator": 100},
        {"us_wei": 10**8, "ppm_wei": 10**8}, {"us_wei": 0, "ppm_wei": 0}, {"need": {"cpu_milli": 2**32 - 1}},
        {"need": {"memory_bytes": 2**53}}, {"need": {"gpus": 255, "gpu": "x" * 32}}, {"need": {"bandwidth_kbps": 2**40 - 1}},
        {"need": {"reliability_ppm": 1_000_000}}, {"need": {"measured": ["cpu"] * 9}},
    ],
)  # fmt: skip
def test_a_wish_at_its_end_is_understood(bed: Bed, changes: dict[str, Any]):
    """It is answered by a plan or by why there is none."""
    assert post(bed, BEST | changes)[0] in (200, 409)


def test_a_body_too_long_or_no_json_is_refused(bed: Bed):
    """413 and 400."""
    assert post(bed, b" " * (16 * 1024 + 1))[0] == 413
    for raw in (b"", b"[]", b"\xff", b'{"nodes": 1', b"null"):
        assert post(bed, raw)[0] == 400


def test_a_machine_whose_link_is_down_can_not_be_placed(bed: Bed, machines: Machines):
    """It is gone at once, and back when it offers again, though it says the very same."""
    statement = machines.statement(2)
    machines.send(2, statement)
    machines.offered.add(2)
    bed.until(lambda: bed.get(OFFERS)["standing"] == 1, "the offer")
    standin = bed.standins[2]
    bed.run(standin.stop())
    bed.until(lambda: bed.get(OFFERS)["standing"] == 0, "its going")
    bed.revive(standin)
    machines.send(2, statement)
    bed.until(lambda: bed.get(OFFERS)["standing"] == 1, "its return")


def test_a_refusal_is_no_plan_that_can_not_be_placed(bed: Bed):
    """A wrong key is told apart by the client."""
    with Client(bed.url, "sk-clusterai-wrong") as client, pytest.raises(ApiError) as failed:
        Offers(client).plan(wish())
    assert failed.value.status == 401


@pytest.fixture
def command(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLUSTERAI_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(bed.folder / "nothing"))
    monkeypatch.setenv("CLUSTERAI_BASE_URL", bed.url)
    monkeypatch.setenv("OPENAI_API_KEY", bed.key)


@pytest.mark.usefixtures("command")
def test_the_command_lists_what_stands(machines: Machines, capsys: pytest.CaptureFixture[str]):
    """A table with marks of whose word it is, JSON as the gateway said it, and the way out where nothing fits."""
    assert run(["offers"]) == 0
    assert "no machine is offered now" in capsys.readouterr().out
    node = checksummed(machines.put(0))
    machines.put(1, region="us", gpu="h100", gpus=2)
    assert run(["offers", "--region", "eu", "--cpu", "4", "--mem", "8G"]) == 0
    out = capsys.readouterr().out
    assert (node[:12] in out, "4 c" in out, "95 % a" in out, "h100" in out) == (True, True, True, False)
    assert run(["offers", "--gpu", "h100:2", "--json"]) == 0
    assert [it["region"]["value"] for it in json.loads(capsys.readouterr().out)["offers"]] == ["us"]
    assert run(["offers", "--limit", "1"]) == 0
    assert "1 more: clusterai offers --page" in capsys.readouterr().out
    assert run(["offers", "--cpu", "5"]) == 0
    assert (
        "→ 4 cores instead of 5 (cpu): 1 machine of 1 operator for 1 CLAI an hour" in capsys.readouterr().out
    )
    assert run(["offers", "--near", "far"]) == 2


@pytest.mark.usefixtures("command")
def test_a_plan_is_shown_with_its_price_and_what_wishes_cost(
    machines: Machines, offers: Offers, capsys: pytest.CaptureFixture[str]
):
    """In an hour and in all, with tolls, and that distances aren't known."""
    machines.put(0, region="us")
    machines.put(1)
    machines.put(2)
    rentplan.plan(offers.plan(PlanRequest(nodes=2, duration_s=7_200, regions=("eu",), hold=False)))
    out = capsys.readouterr().out
    assert "2 machines for 2 h: 5 CLAI an hour, 10 CLAI if every interval is paid" in out
    assert "region costs 2 CLAI an hour" in out
    assert "isn't known" in out


def test_a_group_can_be_bought_at_one_price(
    bed: Bed, machines: Machines, offers: Offers, capsys: pytest.CaptureFixture[str]
):
    """The two cheapest of three are each paid what the third asks; without the most it may cost, that can't be asked."""
    for at in range(3):
        machines.put(at)
    plan = offers.plan(wish(2, pricing="uniform", max_price_wei=100 * TOKEN))
    assert (plan.seat_hour_wei, plan.price_hour_wei, len(plan.machines)) == (3 * TOKEN, 6 * TOKEN, 2)
    rentplan.plan(plan)
    assert "each is paid 3 CLAI an hour" in capsys.readouterr().out
    assert bed.fetch("DELETE", f"{PLAN}/{plan.hold}", None, bed.key)[0] == 204
    assert post(bed, BEST | {"pricing": "uniform"})[0] == 400
    assert post(bed, BEST | {"pricing": "sealed"})[0] == 400


def test_a_card_is_told_to_anyone_and_renters_filter_by_what_is_attested(
    bed: Bed, offers: Offers, machines: Machines, tmp_path: Path
) -> None:
    """An auditor signs on its own machine, the owner's node brings it along, and a renter's command line finds that machine alone."""
    node, other = machines.put(0), machines.put(1)
    owner, auditor = bed.people[0].owner.address, bed.people[2].hot
    label = Attestation(auditor.address, owner, "soc2-type2", bytes(32), 0, 2**39, bytes(65))
    label = msgspec.structs.replace(label, signature=auditor.sign(label.signing_digest(machines.domain)))
    claims = Claims(1, "x86-64-v3", "", 4, 4_000, 2**33, 0, (), "eu", 0)
    card = canonical.encode(Card(owner, node, claims, (), (label,), 1))

    async def say() -> None:
        bed.standins[0].send(Carded(card))

    bed.run(say())
    bed.until(lambda: bed.get(f"{OFFERS}?attested=soc2-type2")["suitable"] == 1, "the card")
    found = offers.card(hex0x(node))
    assert base64.b64decode(found.card) == card
    assert found.proven == (f"soc2-type2@{hex0x(auditor.address)}",)
    listed = offers.list(attested=(f"soc2-type2@{hex0x(auditor.address)}",))
    assert [it.node for it in listed.offers] == [checksummed(node)]
    plan = offers.plan(PlanRequest(nodes=1, duration_s=HOUR_S, attested=("soc2-type2",), hold=False))
    assert [it.node for it in plan.machines] == [checksummed(node)]
    with pytest.raises(NotPlaced) as refused:
        offers.plan(PlanRequest(nodes=2, duration_s=HOUR_S, attested=("soc2-type2",), hold=False))
    assert "attest" in refused.value.why.relaxations[0].text
    with pytest.raises(ApiError, match="no card"):
        offers.card(hex0x(other))
    with pytest.raises(ApiError, match="attested is"):
        offers.list(attested=("soc2@nobody",))


def test_an_attestation_goes_from_the_auditors_machine_to_the_owners_card(
    bed: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By files: one about somebody else, one that was changed and one that is over are refused with the reason."""
    owner, auditor = bed.people[0].owner.address, bed.people[2].hot
    save_key(tmp_path / "auditor.key", auditor)
    config = tmp_path / "node.toml"
    manifest = bed.folder / "network.json"
    config.write_text(
        f'network = "{manifest}"\nkey = "{tmp_path}/auditor.key"\ndata = "{tmp_path}/data"\nowner = "{hex0x(owner)}"\n'
        f'[[gateways]]\nowner = "{hex0x(bed.people[1].owner.address)}"\nurl = "wss://127.0.0.1:1/"\n[[models]]\nname = "tiny"\n'
    )

    def attest(about: Address, label: str = "soc2-type2") -> int:
        words = [
            "--key",
            str(tmp_path / "auditor.key"),
            "--network",
            str(manifest),
            "--out",
            str(tmp_path / "a.bin"),
        ]
        return run(["node", "attest", checksummed(about), label, *words])

    def certify() -> int:
        return run(["node", "certify", str(tmp_path / "a.bin"), "--config", str(config)])

    assert attest(owner) == 0
    assert certify() == 0
    assert "within seconds" in capsys.readouterr().out
    (path,) = (tmp_path / "data" / "attestations").iterdir()
    kept = canonical.decode(path.read_bytes(), Attestation)
    assert signed_by(
        auditor.address,
        kept.signing_digest(network_domain(bed.network.chain_id, bed.network.contracts.registry)),
        kept.signature,
    )
    changed = msgspec.structs.replace(kept, label="iso27001")
    (tmp_path / "a.bin").write_bytes(canonical.encode(changed))
    assert certify() == 2
    assert "signature" in capsys.readouterr().err
    assert attest(bed.people[1].owner.address) == 0
    assert certify() == 2
    assert "it is about" in capsys.readouterr().err
    assert attest(owner, "SOC 2") == 2
    assert "no label" in capsys.readouterr().err
    assert len(list((tmp_path / "data" / "attestations").iterdir())) == 1
