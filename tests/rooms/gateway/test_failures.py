"""What breaks, and what the client sees of it: providers, the gateway and the chain die in turn."""

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, OpenAI

from clusterai.protocol.ids import checksummed, hex0x
from clusterai.work.inference import choice_seed
from tests.rooms.gateway.bed import Bed
from tests.rooms.gateway.standin import Manners

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
LONG: dict[str, Any] = {"max_tokens": 60, "seed": 11, "logit_bias": {"768": -100}}
"""Sixty tokens: the end of the answer is ruled out."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder: Path = tmp_path_factory.mktemp("failures")
    with Bed(folder, patience_s=3.0) as it:
        yield it


@pytest.fixture
def bed(shared: Bed) -> Iterator[Bed]:
    yield shared
    for standin in shared.standins:
        standin.manners = Manners()
        standin.work.clear()
        standin.disputes.clear()
        shared.revive(standin)
    shared.until(
        lambda: all(it["state"] == "ready" for it in shared.get("/v1/clusterai/nodes")["nodes"]),
        "providers",
    )


def stream(bed: Bed, **fields: Any) -> tuple[str, list[Any]]:
    """The text of a streamed answer, and its chunks."""
    with OpenAI(base_url=f"{bed.url}/v1", api_key=bed.key, max_retries=0) as client:
        chunks = list(
            client.chat.completions.create(model="tiny", messages=HELLO, stream=True, **{**LONG, **fields})
        )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), chunks


def test_a_provider_that_dies_mid_stream_is_not_noticed_by_the_client(bed: Bed):
    """The stream goes on elsewhere with the very tokens that the first would have sent, and is charged once."""
    expected, _ = stream(bed)
    bed.standins[0].manners.dies_after = 20
    bed.standins[0].work.clear()
    while True:
        before = bed.spent()
        text, chunks = stream(bed)
        assert text == expected
        if bed.standins[0].work:
            break
    [receipt] = chunks[-1].model_extra["clusterai"]["receipts"]
    assert receipt["provider"] == hex0x(bed.standins[1].owner)
    assert receipt["input_units"] == 22 + 20
    assert receipt["output_units"] == 40
    assert bed.spent() - before == receipt["price_wei"]


def test_a_provider_that_stalls_is_replaced(bed: Bed):
    """Silence is noticed by deadline, and the answer is whole."""
    expected, _ = stream(bed)
    for standin in bed.standins:
        standin.manners.stalls_after = 10
    bed.standins[1].manners.stalls_after = None
    bed.standins[0].work.clear()
    while not bed.standins[0].work:
        assert stream(bed)[0] == expected


def test_a_refused_receipt_is_disputed_and_another_provider_answers(bed: Bed):
    """An overclaiming provider is told so, isn't paid, and the client gets an honest answer."""
    bed.standins[0].manners.lies = {"output_units": 1000, "amount_wei": 99999}
    while not bed.standins[0].disputes:
        status, _, raw = bed.chat(max_tokens=5)
        assert status == 200
        receipts = json.loads(raw)["clusterai"]["receipts"]
        assert [it["provider"] for it in receipts] == [hex0x(bed.standins[1].owner)]
    assert bed.standins[0].disputes == ["usage_mismatch"]


def test_a_provider_that_runs_past_a_stop_string_is_stopped_there(bed: Bed):
    """Its engine ignores stop strings: the client reads and pays up to the stop, and the provider is paid for that."""
    whole, _ = stream(bed)
    stop = whole.split()[3]
    for standin in bed.standins:
        standin.manners.ignores_stops = True
        standin.manners.pause_s = 0.02
        standin.work.clear()
    before = bed.spent()
    text, chunks = stream(bed, stop=[stop], stream_options={"include_usage": True})
    assert text == whole[: whole.index(stop)]
    assert [it.finish_reason for chunk in chunks for it in chunk.choices if it.finish_reason] == ["stop"]
    usage, told = chunks[-1].usage, chunks[-1].model_extra["clusterai"]
    [receipt] = told["receipts"]
    assert receipt["output_units"] == usage.completion_tokens < 20
    assert bed.spent() - before == told["price_wei"] == receipt["price_wei"]
    assert [it.disputes for it in bed.standins] == [[], []]


SEVERAL: dict[str, Any] = {"model": "tiny", "messages": HELLO, "n": 2, "max_tokens": 8, "seed": 3}


def spurn_the_second(bed: Bed) -> None:
    """Only the first stand-in works, and it refuses the second choice once the first is done."""
    bed.standins[1].manners.refuses = "bad_request"
    assert bed.chat(max_tokens=3)[0] == 200, "and so it isn't on probation"
    worker = checksummed(bed.standins[0].owner)
    channels = bed.get("/v1/clusterai/status")["channels"]
    (paid_wei,) = [it["vouchered_wei"] for it in channels if it["provider"] == worker]
    bed.standins[0].manners = Manners(spurns=(choice_seed(3, 1),), paid_wei=paid_wei)


def test_of_two_answers_that_were_wanted_one_is_not_charged(bed: Bed):
    """The provider of the right one is paid all the same, and the client may ask again."""
    spurn_the_second(bed)
    before, paid_wei = bed.spent(), bed.standins[0].paid_wei
    borne_wei = bed.get("/v1/clusterai/status")["borne_wei"]
    status, headers, raw = bed.fetch("POST", "/v1/chat/completions", json.dumps(SEVERAL).encode(), bed.key)
    assert status == 400
    assert "x-should-retry" not in headers
    assert b"provider_refused" in raw
    bed.until(lambda: bed.standins[0].paid_wei > paid_wei, "the payment")
    assert bed.get("/v1/clusterai/status")["borne_wei"] > borne_wei
    assert bed.spent() == before


def test_of_a_stream_that_breaks_the_choices_that_ended_are_charged(bed: Bed):
    """The error event says so, and how much."""
    spurn_the_second(bed)
    before = bed.spent()
    ends: list[int] = []

    def read() -> None:
        with OpenAI(base_url=f"{bed.url}/v1", api_key=bed.key, max_retries=0) as client:
            for chunk in client.chat.completions.create(stream=True, **SEVERAL):
                ends.extend(choice.index for choice in chunk.choices if choice.finish_reason)

    with pytest.raises(APIError, match="were charged for what ended") as caught:
        read()
    assert ends == [0]
    charged_wei = bed.spent() - before
    assert charged_wei > 0
    assert f"{charged_wei} wei" in str(caught.value)


def test_all_busy_is_429_with_a_time_to_retry(bed: Bed):
    """A bounded wait, then a clear answer."""
    for standin in bed.standins:
        standin.manners.refuses = "busy"
    status, headers, raw = bed.chat()
    assert status == 429
    assert int(headers["retry-after"]) >= 1
    assert b"providers_busy" in raw


def test_no_provider_is_503_with_a_reason(bed: Bed):
    """Nothing is charged and the client may try again."""
    before = bed.spent()
    for standin in bed.standins:
        bed.run(standin.stop())
    bed.until(
        lambda: not any(it["linked"] for it in bed.get("/v1/clusterai/nodes")["nodes"]), "the unlinking"
    )
    status, headers, raw = bed.chat()
    assert status == 503
    assert int(headers["retry-after"]) >= 1
    assert b"no_provider_absent" in raw
    assert bed.spent() == before


def test_a_model_is_listed_while_somebody_serves_it(bed: Bed):
    """What nobody can be hired for isn't among the models; asked for by name it says so, and it comes back."""
    listed: Any = bed.get("/v1/models")["data"]
    assert [it["id"] for it in listed] == ["tiny"]
    for standin in bed.standins:
        bed.run(standin.stop())
    bed.until(lambda: not bed.get("/v1/models")["data"], "nobody to be left")
    assert bed.get("/v1/models/tiny")["providers"] == 0
    assert bed.get("/v1/clusterai/status")["models"] == {"tiny": 0}
    bed.revive(bed.standins[0])
    bed.until(lambda: bed.get("/v1/clusterai/status")["models"] == {"tiny": 1}, "one to be back")
    assert len(bed.get("/v1/models")["data"]) == 1


def test_a_node_sees_where_it_stands(bed: Bed):
    """Its place among the usable offers, its share and the answers that were counted; strangers are 404, rubbish 400."""
    bed.chat()
    providers = [it["provider"] for it in bed.get("/v1/clusterai/nodes")["nodes"]]
    found = [bed.get(f"/v1/clusterai/nodes/{provider}") for provider in providers]
    ranks = [one for it in found for one in it["ranks"]]
    assert {(it["of"], it["obstacle"]) for it in ranks} == {(len(providers), "")}
    assert all(1 <= it["place"] <= it["of"] and 0 <= it["share"] <= 1 for it in ranks)
    assert sum(it["answers_an_hour"] for it in ranks) > 0.9
    assert all(it["jobs"] is None for it in found)
    assert bed.fetch("GET", "/v1/clusterai/nodes/0x" + "ab" * 20)[0] == 404
    assert bed.fetch("GET", "/v1/clusterai/nodes/nobody")[0] == 400


def test_a_stream_that_can_not_go_on_ends_in_an_error_event(bed: Bed):
    """What was shown stays, the error says that nothing was charged, and the SDK raises it."""
    before = bed.spent()
    for standin in bed.standins:
        standin.manners.lies = {"epoch": 1}
    with pytest.raises(APIError) as caught:
        stream(bed)
    assert "receipt" in str(caught.value)
    assert bed.spent() == before


def test_killing_the_gateway_loses_nothing_that_was_acknowledged(bed: Bed):
    """After kill -9: the same credit, charges, receipts and idempotent answers."""
    headers = {"Idempotency-Key": "before-the-crash"}
    _, _, first = bed.chat(max_tokens=6, headers=headers)
    account = bed.get("/v1/clusterai/account", bed.key)
    receipt = json.loads(first)["clusterai"]["receipts"][0]["id"]
    bed.kill("gateway")
    bed.start_gateway()
    bed.until(lambda: bed.usable() == 2, "the providers")
    after = bed.get("/v1/clusterai/account", bed.key)
    assert (after["charged_wei"], after["funded_wei"]) == (account["charged_wei"], account["funded_wei"])
    assert bed.get(f"/v1/clusterai/receipts/{receipt}")["id"] == receipt
    _, replayed, again = bed.chat(max_tokens=6, headers=headers)
    assert again == first
    assert replayed["idempotent-replayed"] == "true"
    assert bed.get("/v1/clusterai/account", bed.key)["charged_wei"] == account["charged_wei"]
    assert bed.chat(max_tokens=2)[0] == 200


def test_without_the_chain_answers_go_on(bed: Bed):
    """Work needs no block; the chain only settles."""
    bed.kill("chain")
    try:
        assert bed.chat(max_tokens=3)[0] == 200
    finally:
        bed.start_chain()
    bed.fund(bed.account, 5)
    funded = bed.get("/v1/clusterai/account", bed.key)["funded_wei"]
    bed.until(
        lambda: bed.get("/v1/clusterai/account", bed.key)["funded_wei"] >= funded,
        "the chain's news after its return",
    )


def test_a_shutdown_ends_streams_with_an_error_event(bed: Bed):
    """SIGTERM lets answers end for a while, then tells those that are left why."""
    for standin in bed.standins:
        standin.manners.pause_s = 0.2
    seen: list[str] = []

    def listen() -> None:
        try:
            stream(bed)
        except APIError as error:
            seen.append(str(error))

    listener = threading.Thread(target=listen)
    listener.start()
    bed.until(lambda: any(standin.work for standin in bed.standins), "the order")
    bed.kill("gateway", signal.SIGTERM)
    listener.join()
    assert seen
    assert "restarts" in seen[0]
    bed.start_gateway()
    bed.until(lambda: bed.usable() == 2, "the providers")
