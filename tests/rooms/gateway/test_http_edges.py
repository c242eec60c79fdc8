"""What stands around an answer: limits, idempotency, keys, receipts, transcripts, events, metrics."""

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterai.gateway.core.limits import Limits
from clusterai.protocol import canonical
from clusterai.protocol.ids import hex0x
from clusterai.protocol.messages import Transcript
from tests.rooms.gateway.bed import Bed


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder: Path = tmp_path_factory.mktemp("edges")
    with Bed(folder, most_body=100_000) as it:
        yield it


@pytest.fixture
def admin(bed: Bed) -> str:
    return (bed.folder / "gateway" / "admin.key").read_text().strip()


def code(raw: Any) -> str:
    return json.loads(raw)["error"]["code"]


def test_every_answer_tells_its_id_and_the_limits_that_are_left(bed: Bed):
    """x-request-id and OpenAI's x-ratelimit headers stand on good answers and on bad ones."""
    cases: list[tuple[dict[str, Any], int]] = [({}, 200), ({"temperature": 9}, 400)]
    for fields, wanted in cases:
        status, headers, _ = bed.chat(max_tokens=1, **fields)
        assert status == wanted
        assert headers["x-request-id"].startswith("req_")
        for kind in ("requests", "tokens"):
            assert int(headers[f"x-ratelimit-remaining-{kind}"]) <= int(headers[f"x-ratelimit-limit-{kind}"])
            assert headers[f"x-ratelimit-reset-{kind}"].endswith("ms")


@pytest.mark.parametrize("limits", [Limits(requests_per_minute=2), Limits(tokens_per_minute=50)])
def test_a_spent_allowance_is_429_with_the_time_to_wait(bed: Bed, limits: Limits):
    """Requests and tokens a minute are counted per key."""
    key, _ = bed.ring.create("slow", bed.account, limits=limits)
    answers = [bed.chat(key=key, max_tokens=1) for _ in range(3)]
    assert [it[0] for it in answers] == [200, 200, 429]
    assert code(answers[2][2]) == "rate_limit_exceeded"
    assert int(answers[2][1]["retry-after"]) >= 1


def test_more_requests_at_once_than_a_key_may_run_are_429(bed: Bed):
    """A key's running requests are bounded, and free their place when they end."""
    key, _ = bed.ring.create("narrow", bed.account, limits=Limits(at_once=1))
    for standin in bed.standins:
        standin.manners.pause_s = 0.05
        standin.work.clear()
    first = threading.Thread(
        target=bed.chat, kwargs={"key": key, "max_tokens": 800, "logit_bias": {"768": -100}}
    )
    first.start()
    bed.until(lambda: any(standin.work for standin in bed.standins), "the first order")
    status, _, raw = bed.chat(key=key, max_tokens=1)
    for standin in bed.standins:
        standin.manners.pause_s = 0.0
    first.join()
    assert (status, code(raw)) == (429, "too_many_at_once")
    assert bed.chat(key=key, max_tokens=1)[0] == 200


def test_an_idempotency_key_replays_the_same_body_and_refuses_another(bed: Bed):
    """The first answer again, byte for byte and uncharged; 422 for another body; other accounts have their own keys."""
    headers = {"Idempotency-Key": "one"}
    _, _, first = bed.chat("a", max_tokens=4, headers=headers)
    spent = bed.spent()
    status, found, again = bed.chat("a", max_tokens=4, headers=headers)
    assert (status, again, found["idempotent-replayed"]) == (200, first, "true")
    assert bed.spent() == spent
    status, _, raw = bed.chat("b", max_tokens=4, headers=headers)
    assert (status, code(raw)) == (422, "idempotency_key_reused")


def test_a_stream_is_replayed_too(bed: Bed):
    """All its events come at once, the receipt is the same."""
    headers = {"Idempotency-Key": "streamed"}
    _, _, first = bed.chat(max_tokens=4, stream=True, headers=headers)
    _, found, again = bed.chat(max_tokens=4, stream=True, headers=headers)
    assert again == first
    assert found["content-type"].startswith("text/event-stream")


def test_a_request_that_runs_under_the_same_key_is_409(bed: Bed):
    """Two at once would pay twice."""
    for standin in bed.standins:
        standin.manners.pause_s = 0.05
        standin.work.clear()
    fields: dict[str, Any] = {
        "max_tokens": 800,
        "logit_bias": {"768": -100},
        "headers": {"Idempotency-Key": "twice"},
    }
    first = threading.Thread(target=bed.chat, kwargs=dict(fields))
    first.start()
    bed.until(lambda: any(standin.work for standin in bed.standins), "the first order")
    status, _, raw = bed.chat(**dict(fields))
    for standin in bed.standins:
        standin.manners.pause_s = 0.0
    first.join()
    assert (status, code(raw)) == (409, "idempotency_key_in_use")


def test_a_failed_request_leaves_its_idempotency_key_free(bed: Bed):
    """Who was refused may try again with the same key."""
    headers = {"Idempotency-Key": "second-chance"}
    assert bed.chat(max_tokens=1, temperature=9, headers=headers)[0] == 400
    assert bed.chat(max_tokens=1, headers=headers)[0] == 200


def test_bodies_that_are_too_large_are_413(bed: Bed):
    """Said before they are parsed."""
    status, _, raw = bed.chat("x" * 200_000)
    assert (status, code(raw)) == (413, "request_too_large")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": 5}', b"[" * 50_000])
def test_bodies_that_are_no_requests_are_400(bed: Bed, body: bytes):
    """Whatever the bytes are, the answer is OpenAI's envelope."""
    status, _, raw = bed.fetch("POST", "/v1/chat/completions", body, bed.key)
    assert status == 400
    assert code(raw).startswith("invalid_")


@pytest.mark.parametrize(
    ("path", "methods"), [("/v1/chat/completions", {"POST"}), ("/v1/clusterai/keys", {"GET", "HEAD", "POST"})]
)
def test_another_method_is_405_and_tells_which_are_allowed(bed: Bed, path: str, methods: set[str]):
    """RFC 9110 wants all methods of the address in `Allow`."""
    status, headers, _ = bed.fetch("PATCH", path, key=bed.key)
    assert status == 405
    assert {it.strip() for it in headers["allow"].split(",")} == methods


def test_other_methods_and_paths_are_405_and_404(bed: Bed):
    """In OpenAI's envelope on its side, as RFC 9457 problems on ours."""
    assert bed.fetch("GET", "/v1/chat/completions", key=bed.key)[0] == 405
    status, _, raw = bed.fetch("GET", "/v1/nothing")
    assert (status, code(raw)) == (404, "unknown_url")
    status, headers, raw = bed.fetch("GET", "/v1/clusterai/receipts/0x12")
    assert status == 400
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(raw)["status"] == 400


def test_a_receipt_is_public_and_its_transcript_is_the_accounts(bed: Bed):
    """A transcript holds the order, the request and the tokens that its receipt was signed for."""
    _, _, raw = bed.chat("remember me", max_tokens=5)
    order = json.loads(raw)["clusterai"]["receipts"][0]["id"]
    receipt = bed.get(f"/v1/clusterai/receipts/{order}")
    assert receipt["state"] == "paid"
    assert "account" not in receipt
    told = bed.get(f"/v1/clusterai/receipts/{order}/transcript", bed.key)
    transcript = canonical.decode(base64.b64decode(told["transcript"]), Transcript)
    assert hex0x(canonical.digest(transcript.order)) == order
    assert hex0x(transcript.answer.digest()) == receipt["answer"]
    assert told["text"] == json.loads(raw)["choices"][0]["message"]["content"]
    stranger, _ = bed.ring.create("stranger")
    assert bed.fetch("GET", f"/v1/clusterai/receipts/{order}/transcript", key=stranger)[0] == 404
    stored = (bed.folder / "gateway" / "archive.db").read_bytes()
    assert b"remember me" not in stored


def test_keys_are_made_listed_and_revoked_with_the_admin_key_only(bed: Bed, admin: str):
    """A key is shown once; revoked, it is refused."""
    assert bed.fetch("POST", "/v1/clusterai/keys", b"{}", bed.key)[0] == 401
    wish = json.dumps({"name": "by admin", "account": hex0x(bed.account), "scopes": ["inference"]}).encode()
    status, _, raw = bed.fetch("POST", "/v1/clusterai/keys", wish, admin)
    made = json.loads(raw)
    assert status == 201
    assert bed.chat(key=made["key"], max_tokens=1)[0] == 200
    assert bed.fetch("GET", "/v1/clusterai/account", key=made["key"])[0] == 403
    listed = bed.get("/v1/clusterai/keys", admin)["keys"]
    assert made["id"] in {it["id"] for it in listed}
    assert made["key"] not in json.dumps(listed)
    assert bed.fetch("DELETE", f"/v1/clusterai/keys/{made['id']}", key=admin)[0] == 204
    assert bed.chat(key=made["key"], max_tokens=1)[0] == 401
    assert made["key"].encode() not in (bed.folder / "gateway" / "keys.db").read_bytes()


def test_events_are_told_to_those_who_poll(bed: Bed):
    """Each has a number, and `after` leaves out what was seen."""
    bed.chat(max_tokens=1)
    told = bed.get("/v1/clusterai/events")["events"]
    assert told[-1]["kind"] == "receipt"
    assert bed.get(f"/v1/clusterai/events?after={told[-1]['seq']}")["events"] == []


def test_metrics_count_tokens_and_money(bed: Bed):
    """Prometheus' text, with OpenTelemetry's names where there are some."""
    text = bed.fetch("GET", "/metrics")[2].decode()
    for name in (
        "gen_ai_client_token_usage_total",
        "clusterai_gateway_charged_wei_total",
        "clusterai_gateway_providers",
    ):
        assert name in text


def test_funding_on_chain_becomes_credit(bed: Bed):
    """An account's credit rises by what was paid for it, once its block is read."""
    before = bed.get("/v1/clusterai/account", bed.key)["funded_wei"]
    bed.fund(bed.account, 12345)
    bed.until(lambda: bed.get("/v1/clusterai/account", bed.key)["funded_wei"] == before + 12345, "the credit")
