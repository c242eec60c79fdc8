"""Calls, orders and data as requesters meet them: a real gateway process, real links, vaults on the tests' side."""

import asyncio
import base64
import json
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from clusterai.gateway.core.limits import Limits
from clusterai.protocol.calls import MOST_CALL_BYTES, PART_BYTES
from clusterai.protocol.canonical import encode
from clusterai.protocol.ids import Digest, checksummed
from clusterai.protocol.statements import network_domain
from clusterai.protocol.vaults import subject
from clusterai.sdk.vaults import ApiError, Untrue, Vaults, read
from clusterai.sdk.vaultshapes import Dataset
from tests.rooms.vaults.callbed import MILLI_WEI, USE_WEI, CallBed, VaultStandIn
from tests.rooms.vaults.echo import Echo


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CallBed]:
    folder = tmp_path_factory.mktemp("calls")
    calls = {"timeout_s": 20.0, "account_calls": 4, "account_bytes": 24 << 20, "most_bytes": 40 << 20}
    with CallBed(folder, providers=2, wallets=False, serve=["tiny"], calls=calls) as bed:
        yield bed


@pytest.fixture
def vault(bed: CallBed) -> Iterator[VaultStandIn]:
    standin = bed.standins[0]
    yield standin
    standin.silent = False
    standin.manners.lies.clear()
    bed.revive(standin)
    bed.until(lambda: bed.usable() == 2, "the vaults again")


def problem(found: tuple[int, dict[str, str], bytes]) -> tuple[int, str, str]:
    body = json.loads(found[2])
    return found[0], body["type"].rpartition(":")[2], body["detail"]


def test_a_call_reaches_the_vault_that_it_names_and_comes_back(bed: CallBed, vault: VaultStandIn):
    """Bodies go there and back as they are, in parts where they are long; the sender is what the requester said."""
    sender = "0x" + "ab" * 20
    status, headers, raw = bed.call(vault.subject, b"hello", query=f"?sender={sender}")
    assert (status, raw) == (200, bytes.fromhex("ab" * 20) + b"olleh")
    assert headers["x-clusterai-provider"] == checksummed(vault.owner)
    long = bytes(at % 251 for at in range(3 * PART_BYTES + 7))
    assert bed.call(vault.subject, long)[2] == bytes(20) + long[::-1]
    assert bed.call(vault.subject, b"")[2] == bytes(20)


def test_refusals_are_told_as_http_tells_them(bed: CallBed, vault: VaultStandIn):
    """Who is refused hears by whom and why; a code of the vault's own is its failure; what nobody answers is 404."""
    status, code, detail = problem(bed.call(vault.subject, b"deny"))
    assert (status, code) == (403, "denied")
    assert checksummed(vault.owner) in detail
    assert problem(bed.call(vault.subject, b"break"))[:2] == (502, "failed")
    assert problem(bed.call(Digest(bytes(32)), b"x"))[:2] == (404, "not_found")
    other = checksummed(bed.standins[1].owner)
    assert problem(bed.call(vault.subject, b"x", query=f"?provider={other}"))[0] == 404
    assert problem(bed.call(vault.subject, b"x", query="?provider=me"))[:2] == (400, "invalid_request")
    assert bed.call(vault.subject, b"x", key="sk-clusterai-wrong")[0] == 401


def test_a_vault_that_is_lost_in_a_call_is_named(bed: CallBed, vault: VaultStandIn):
    """Its link ends while it has the call: 503 at once, with its address and when to ask again."""
    vault.dies_in_call = True
    found = bed.call(vault.subject, b"hello")
    status, code, detail = problem(found)
    assert (status, code) == (503, "provider_lost")
    assert checksummed(vault.owner) in detail
    assert found[1]["retry-after"] == "2"


def test_what_is_too_much_is_refused_and_frees_what_it_held(bed: CallBed, vault: VaultStandIn):
    """A call above 64 MiB, or above what an account may hold, ends; so does an answer that is; then all goes on."""
    assert problem(bed.call(vault.subject, bytes(25 << 20)))[:2] == (503, "calls_full")
    assert problem(bed.call(vault.subject, b"much %d" % (25 << 20)))[:2] == (503, "calls_full")
    bed.until(lambda: vault.gone, "the vault to hear that nobody waits")
    assert len(bed.call(vault.subject, b"much %d" % (20 << 20))[2]) == 20 << 20
    assert MOST_CALL_BYTES == 64 << 20


def test_an_account_has_so_many_calls_at_once(bed: CallBed, vault: VaultStandIn):
    """The fifth of four is told to wait, others' calls pass, and those that were given up are free again."""
    vault.silent = True
    before = len(vault.calls)
    threads = [threading.Thread(target=bed.call, args=(vault.subject, b"wait")) for _ in range(4)]
    for thread in threads:
        thread.start()
    bed.until(lambda: len(vault.calls) == before + 4, "four calls")
    assert problem(bed.call(vault.subject, b"x"))[:2] == (429, "calls_full")
    other, _ = bed.ring.create("other")
    vault.silent = False
    assert bed.call(vault.subject, b"x", key=other)[0] == 200
    bed.run(vault.stop())
    for thread in threads:
        thread.join()
    bed.revive(vault)
    bed.until(lambda: bed.call(vault.subject, b"x")[0] == 200, "the vault again")


def test_a_keys_own_limits_hold_for_calls(bed: CallBed, vault: VaultStandIn):
    """Requests a minute count here as elsewhere."""
    key, _ = bed.ring.create("slow", limits=Limits(requests_per_minute=1))
    assert bed.call(vault.subject, b"x", key=key)[0] == 200
    assert problem(bed.call(vault.subject, b"x", key=key))[:2] == (429, "rate_limit_exceeded")


# --- orders ---


def test_an_order_is_charged_and_its_receipt_is_listed(bed: CallBed, vault: VaultStandIn):
    """The answer's bytes come with the receipt; ε is its input, one use its output, and the account lists it."""
    before_wei = bed.spent()
    status, found = bed.order(vault.subject, Echo(vault.subject, b"mean age", 500))
    assert (status, base64.b64decode(found["answer"])) == (200, b"MEAN AGE")
    assert found["charged_wei"] == 500 * MILLI_WEI + USE_WEI
    assert (found["receipt"]["input_units"], found["receipt"]["output_units"]) == (500, 1)
    assert found["provider"] == checksummed(vault.owner)
    assert bed.spent() - before_wei == found["charged_wei"]
    listed: Any = {}

    def is_listed() -> bool:
        listed.update(bed.get("/v1/clusterai/receipts", bed.key))
        return found["receipt"]["id"] in [it["id"] for it in listed["receipts"]]

    bed.until(is_listed, "the receipt in the list")


def test_an_order_that_is_sent_again_is_paid_once(bed: CallBed, vault: VaultStandIn):
    """With the same Idempotency-Key comes the same answer; with another body it is refused."""
    before_wei = bed.spent()
    request = Echo(vault.subject, b"once", 1)
    first = bed.order(vault.subject, request, Idempotency_Key="once")
    assert bed.order(vault.subject, request, Idempotency_Key="once") == first
    assert bed.spent() - before_wei == first[1]["charged_wei"]
    assert bed.order(vault.subject, Echo(vault.subject, b"twice"), Idempotency_Key="once")[0] == 422


def test_an_order_costs_no_more_than_it_may(bed: CallBed, vault: VaultStandIn):
    """Above `max_price_wei` nothing is ordered, and the numbers are told; at it, it is done."""
    request = Echo(vault.subject, b"dear", 10)
    cost_wei = 10 * MILLI_WEI + USE_WEI
    status, found = bed.order(vault.subject, request, {"max_price_wei": cost_wei - 1})
    assert (status, found["type"]) == (400, "urn:clusterai:problem:too_dear")
    assert str(cost_wei) in found["detail"]
    assert bed.order(vault.subject, request, {"max_price_wei": cost_wei})[0] == 200


def test_what_doesnt_come_isnt_charged(bed: CallBed, vault: VaultStandIn):
    """A refusal says why, a provider that is lost and an answer that isn't bytes cost nothing."""
    before_wei = bed.spent()
    status, found = bed.order(vault.subject, Echo(vault.subject, b"refuse me"))
    assert (status, found["type"]) == (400, "urn:clusterai:problem:provider_refused")
    assert "spent" in found["detail"]
    vault.manners.lies["tokens"] = [7, 7]
    status, found = bed.order(vault.subject, Echo(vault.subject, b"nonsense"))
    assert status >= 500
    vault.manners.lies.clear()
    bed.revive(vault)
    vault.manners.dies_after = 1
    request = Echo(vault.subject, b"lost")
    assert bed.order(vault.subject, request, Idempotency_Key="lost")[0] in (502, 503)
    assert bed.spent() == before_wei
    bed.revive(vault)
    bed.until(
        lambda: bed.order(vault.subject, request, Idempotency_Key="lost")[0] == 200, "the vault's answer"
    )
    assert bed.spent() == before_wei + USE_WEI


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "inference"},
        {"kind": "nothing"},
        {"request": "!"},
        {"request": "wA=="},
        {"max_price_wei": -1},
        {"provider": "0x12"},
        {"more": 1},
    ],
)
def test_what_is_no_order_is_refused(bed: CallBed, vault: VaultStandIn, body: dict[str, Any]):
    """Kinds with endpoints of their own, bytes of no request, and nonsense cost nobody anything."""
    assert bed.order(vault.subject, Echo(vault.subject, b"x"), body)[0] == 400


def test_a_request_about_another_subject_is_refused(bed: CallBed, vault: VaultStandIn):
    """The path says what the request must be about."""
    status, found = bed.order(vault.subject, Echo(subject(vault.dataset, "other"), b"x"))
    assert (status, "another subject" in found["detail"]) == (400, True)


# --- data ---


def test_data_is_listed_with_who_has_it_and_what_is_done_with_it(bed: CallBed, vault: VaultStandIn):
    """Anyone may look; pages follow one another; a data set shows its card, its holders and their prices."""
    first = bed.get("/v1/clusterai/data?limit=1")
    second = bed.get(f"/v1/clusterai/data?limit=1&page={first['next']}")
    assert second["next"] == ""
    assert {it["dataset"] for it in first["data"] + second["data"]} == {
        "0x" + it.dataset.hex() for it in bed.standins
    }
    found = bed.get(f"/v1/clusterai/data/0x{vault.dataset.hex()}")
    assert found["card"] == {"name": "hearts", "text": "of hearts"}
    assert found["holders"] == [checksummed(vault.owner)]
    (served,) = found["serves"]
    assert (served["kind"], served["price_wei"], served["epsilon_price_wei"]) == ("echo", USE_WEI, MILLI_WEI)
    assert bed.get("/v1/clusterai/data?text=HEARTS")["data"]
    assert not bed.get("/v1/clusterai/data?text=kidneys")["data"]
    assert bed.fetch("GET", "/v1/clusterai/data/0x" + "00" * 32)[0] == 404
    assert bed.fetch("GET", "/v1/clusterai/data?words=x")[0] == 400


# --- the client ---


def test_the_client_finds_what_the_owner_signed_and_orders_it(bed: CallBed, vault: VaultStandIn):
    """A data set is checked on its way in; an order comes with its receipt; a refusal with what to do."""

    async def main() -> None:
        async with Vaults(bed.url, bed.key, patience_s=5) as vaults:
            data = await vaults.dataset(vault.dataset)
            assert (data.name, data.signer) == ("hearts", bed.people[0].hot.address)
            assert vault.dataset in [it.dataset async for it in vaults.find("hearts")]
            about = data.dataset, (await vaults.network()).chain_id
            assert about == (vault.dataset, 31415)
            done = await vaults.order(vault.subject, "echo", encode(Echo(vault.subject, b"by sdk", 3)))
            assert (done.answer, done.charged_wei) == (b"BY SDK", 3 * MILLI_WEI + USE_WEI)
            assert done.receipt is not None
            assert await vaults.call(vault.subject, b"ab", vault.owner) == vault.owner + b"ba"
            for refused, code in (
                (vaults.call(vault.subject, b"deny"), "denied"),
                (
                    vaults.order(vault.subject, "echo", encode(Echo(vault.subject, b"x")), max_price_wei=1),
                    "too_dear",
                ),
                (vaults.dataset(Digest(bytes(32))), "not_found"),
            ):
                with pytest.raises(ApiError) as error:
                    await refused
                assert error.value.code == code
            with pytest.raises(Untrue, match="no key"):
                data.seal_to  # noqa: B018  a stand-in's card names none

    asyncio.run(main())


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("card", msgspec.Raw(b'{"name":"hearts","text":"of gold"}'), "another than was signed"),
        ("signature", "0x" + "00" * 65, "signature"),
        ("listing", "kA==", "signed"),
    ],
)
def test_what_a_gateway_changes_is_noticed(
    bed: CallBed, vault: VaultStandIn, field: str, value: Any, why: str
):
    """A card or a listing other than was signed is refused before anything is sealed to a key in it."""
    raw = bed.fetch("GET", f"/v1/clusterai/data/0x{vault.dataset.hex()}")[2]
    told = msgspec.json.decode(raw, type=Dataset)
    network = network_domain(bed.network.chain_id, bed.network.contracts.registry)
    assert read(told, network).name == "hearts"
    with pytest.raises(Untrue, match=why):
        read(msgspec.structs.replace(told, **{field: value}), network)


def test_the_client_waits_for_a_vault_that_comes_back(bed: CallBed, vault: VaultStandIn):
    """An order whose vault is lost on the way is done when it is back, and charged once."""
    before_wei = bed.spent()
    vault.manners.dies_after = 1

    async def main() -> bytes:
        async with Vaults(bed.url, bed.key, patience_s=60) as vaults:
            request = encode(Echo(vault.subject, b"patience"))
            ordered = asyncio.create_task(vaults.order(vault.subject, "echo", request))
            while vault.up.is_set():  # noqa: ASYNC110  its event is of another loop
                await asyncio.sleep(0.01)
            await asyncio.to_thread(bed.revive, vault)
            return (await ordered).answer

    assert asyncio.run(main()) == b"PATIENCE"
    assert bed.spent() - before_wei == USE_WEI


def test_an_answer_outlives_the_gateway_that_gave_it(bed: CallBed, vault: VaultStandIn):
    """It was charged, and then the process died before it kept the answer: its transcript says it as well."""
    request = Echo(vault.subject, b"outlives", 2)
    first = bed.order(vault.subject, request, Idempotency_Key="outlives")
    before_wei = bed.spent()

    def is_kept() -> bool:
        path = f"/v1/clusterai/receipts/{first[1]['receipt']['id']}/transcript"
        return bed.fetch("GET", path, key=bed.key)[0] == 200

    bed.until(is_kept, "the transcript")
    bed.kill("gateway")
    with sqlite3.connect(bed.folder / "gateway" / "replies.db") as replies:
        replies.execute("UPDATE replies SET reply = NULL")
    replies.close()
    bed.start_gateway()
    bed.until(lambda: bed.usable() == 2, "the vaults again")
    again = bed.order(vault.subject, request, Idempotency_Key="outlives")
    assert (again[0], again[1]["answer"]) == (200, first[1]["answer"])
    assert again[1]["receipt"]["id"] == first[1]["receipt"]["id"]
    assert bed.spent() == before_wei
