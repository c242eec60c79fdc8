"""Jobs and content over HTTP: whose they are, what bad input gets, and that nothing is taken for what never began."""

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from clusterai.gateway.core.jobplacing import KIND
from clusterai.protocol import canonical
from clusterai.protocol.jobs import Lends
from clusterai.work.batch.core.plan import Offer
from clusterai.work.batch.spec import Image, JobArray, JobSpec, Resources, Root
from tests.rooms.gateway.bed import Bed

MODULE = b"\0asm\x01\0\0\0"
SPEC = JobSpec(
    name="sums", check="wasm", image=Image("wasm", blake3(MODULE).digest()), segments=4, fuel=10**9
)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder: Path = tmp_path_factory.mktemp("jobs")
    with Bed(folder, providers=1) as it:
        yield it


def digest(data: bytes) -> str:
    return "0x" + blake3(data).hexdigest()


def asked(spec: JobSpec = SPEC, **wishes: Any) -> bytes:
    return json.dumps({"job": b64encode(JobArray(spec).canonical()).decode(), **wishes}).encode()


def problem(raw: bytes) -> str:
    found = json.loads(raw)
    assert found["type"].startswith("urn:clusterai:problem:"), found
    return found["type"].rpartition(":")[2]


def put(bed: Bed, data: bytes, key: str | None = None) -> int:
    return bed.fetch("PUT", f"/v1/content/{digest(data)}", data, key or bed.key)[0]


def test_content_is_its_accounts(bed: Bed):
    """What an account uploads it gets back, whole; another account is told that there is no such thing."""
    other, _ = bed.ring.create("other")
    assert put(bed, b"hello") == 201
    assert put(bed, b"hello") == 200
    path = f"/v1/content/{digest(b'hello')}"
    assert bed.fetch("GET", path, None, bed.key)[2] == b"hello"
    assert bed.fetch("HEAD", path, None, bed.key)[0] == 200
    assert bed.fetch("GET", path, None, other)[0] == 404
    assert bed.fetch("HEAD", path, None, other)[0] == 404
    assert bed.fetch("GET", path)[0] == 401


def test_content_under_a_wrong_name_is_refused(bed: Bed):
    """The name is the digest of the bytes; anything else isn't kept, and what lay there before stays."""
    assert put(bed, b"kept") == 201
    status, _, raw = bed.fetch("PUT", f"/v1/content/{digest(b'other')}", b"kept", bed.key)
    assert (status, problem(raw)) == (422, "digest-differs")
    assert bed.fetch("GET", f"/v1/content/{digest(b'kept')}", None, bed.key)[2] == b"kept"
    assert bed.fetch("GET", f"/v1/content/{digest(b'other')}", None, bed.key)[0] == 404


@pytest.mark.parametrize("name", ["0x", "nonsense", "0x" + "g" * 64, "..%2f..%2fadmin.key", "0x" + "0" * 65])
def test_what_is_no_digest_is_no_content(bed: Bed, name: str):
    """No name can choose a path."""
    assert bed.fetch("GET", f"/v1/content/{name}", None, bed.key)[0] in (400, 404)
    assert bed.fetch("PUT", f"/v1/content/{name}", b"x", bed.key)[0] in (400, 404)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"job": 7}',
        b'{"job": "%%%"}',
        json.dumps({"job": b64encode(b"\x93\x01\x02\x03").decode()}).encode(),
        b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        asked(replicas=0),
        asked(replicas=10_000),
        asked(retries=-1),
        asked(max_price_wei=-1),
        asked(deadline_s=2**60),
    ],
    ids=range(12),
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/plan"])
def test_nonsense_is_a_400_that_names_the_field(bed: Bed, path: str, body: bytes):
    """Whatever is wrong is said, and nothing is begun."""
    status, _, raw = bed.fetch("POST", path, body, bed.key)
    assert status == 400, raw
    assert json.loads(raw)["detail"]
    assert bed.get("/v1/jobs", bed.key)["jobs"] == []


def test_a_job_whose_content_was_never_uploaded_is_refused(bed: Bed):
    """Another account's upload doesn't serve: whoever knows a digest doesn't own what it names."""
    other, _ = bed.ring.create("owner of the module")
    put(bed, MODULE, other)
    spec = JobSpec(
        name="sums",
        check="wasm",
        image=SPEC.image,
        inputs=(Root(blake3(b"nowhere").digest(), 1, 1),),
        segments=4,
        fuel=10**9,
    )
    status, _, raw = bed.fetch("POST", "/v1/jobs", asked(spec), bed.key)
    assert (status, problem(raw)) == (424, "content-missing")
    assert digest(b"nowhere") in raw.decode()


def test_a_plan_says_why_nobody_can_take_it(bed: Bed):
    """No provider lends anything here: the plan and the refusal say so, and nothing is set aside."""
    plan = json.loads(bed.fetch("POST", "/v1/jobs/plan", asked(), bed.key)[2])
    assert not plan["placed"]
    assert plan["reasons"][0]["code"] == "nobody"
    put(bed, MODULE)
    credit = bed.get("/v1/clusterai/account", bed.key)["credit_wei"]
    status, _, raw = bed.fetch("POST", "/v1/jobs", asked(), bed.key)
    assert (status, problem(raw)) == (409, "not-placed")
    assert json.loads(raw)["plan"]["reasons"]
    assert bed.get("/v1/clusterai/account", bed.key)["credit_wei"] == credit


def test_a_job_is_its_accounts_and_its_key_makes_it_once(bed: Bed):
    """The same Idempotency-Key gives the same job; others can neither see nor cancel it; cancelled, its credit is back."""
    put(bed, MODULE)
    provider = bed.people[0].owner.address
    offer = canonical.encode(Offer(provider="0x" + provider.hex()))

    async def lend() -> None:
        bed.standins[0].send(Lends(KIND, offer, 0, 0))

    bed.run(lend())
    bed.until(
        lambda: json.loads(bed.fetch("POST", "/v1/jobs/plan", asked(), bed.key)[2])["placed"], "an offer"
    )
    credit = bed.get("/v1/clusterai/account", bed.key)["credit_wei"]
    first = bed.fetch("POST", "/v1/jobs", asked(), bed.key, Idempotency_Key="once")
    again = bed.fetch("POST", "/v1/jobs", asked(), bed.key, Idempotency_Key="once")
    assert (first[0], again[0]) == (201, 201)
    job = json.loads(first[2])
    assert json.loads(again[2])["id"] == job["id"]
    assert bed.get("/v1/clusterai/account", bed.key)["credit_wei"] == credit - job["held_wei"]
    other, _ = bed.ring.create("stranger")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/logs"), ("GET", "/audit")):
        assert bed.fetch(method, f"/v1/jobs/{job['id']}{path}", None, other)[0] == 404
    assert bed.fetch("DELETE", f"/v1/jobs/{job['id']}", None, bed.key)[0] == 200
    bed.until(
        lambda: bed.get("/v1/clusterai/account", bed.key)["credit_wei"] == credit, "the credit to be back"
    )
    shown = bed.get(f"/v1/jobs/{job['id']}", bed.key)
    assert shown["state"] == "closed"
    assert shown["tasks"][0]["reason"] == "CANCELLED_BEFORE_START"
    events = bed.fetch("GET", f"/v1/jobs/{job['id']}/logs", None, bed.key)[2].decode()
    assert '"kind":"end"' in events


def test_more_than_the_credit_is_a_402(bed: Bed):
    """A job that could cost more than there is never begins."""
    poor, _ = bed.ring.create("poor")
    put(bed, MODULE, poor)
    status, _, raw = bed.fetch("POST", "/v1/jobs", asked(max_price_wei=10**6), poor)
    assert status == 402, raw


def listed(bed: Bed, query: str = "", key: str | None = None) -> dict[str, Any]:
    return bed.get(f"/v1/jobs{query}", key or bed.key)


def test_pages_hold_every_job_once(bed: Bed):
    """Newest first, in pages of any size, while jobs are begun in between; another account's list is its own."""
    put(bed, MODULE)
    provider = bed.people[0].owner.address
    offer = canonical.encode(Offer(provider="0x" + provider.hex()))

    async def lend() -> None:
        bed.standins[0].send(Lends(KIND, offer, 0, 0))

    bed.run(lend())
    bed.until(
        lambda: json.loads(bed.fetch("POST", "/v1/jobs/plan", asked(), bed.key)[2])["placed"], "an offer"
    )

    def begin(number: int) -> str:
        status, _, raw = bed.fetch("POST", "/v1/jobs", asked(), bed.key, Idempotency_Key=f"page {number}")
        assert status == 201, raw
        return json.loads(raw)["id"]

    begun = {begin(number) for number in range(5)}
    whole = listed(bed, "?limit=500")
    assert whole["next"] == ""
    ids = [it["id"] for it in whole["jobs"]]
    assert begun <= set(ids)
    assert [it["created_s"] for it in whole["jobs"]] == sorted(
        (it["created_s"] for it in whole["jobs"]), reverse=True
    )
    for size in (1, 2, len(ids) - 1, len(ids)):
        found: list[str] = []
        page = listed(bed, f"?limit={size}")
        while True:
            found += [it["id"] for it in page["jobs"]]
            if not page["next"]:
                break
            page = listed(bed, f"?limit={size}&page={page['next']}")
        assert found == ids
    first = listed(bed, "?limit=2")
    later = begin(99)
    rest = listed(bed, f"?limit=500&page={first['next']}")
    # Begun in the same second it may stand behind; none of the others is moved or told twice.
    assert [it["id"] for it in (*first["jobs"], *rest["jobs"]) if it["id"] != later] == ids
    other, _ = bed.ring.create("page reader")
    assert listed(bed, f"?page={first['next']}", other) == {"jobs": [], "next": ""}
    for job in {*begun, later}:
        assert bed.fetch("DELETE", f"/v1/jobs/{job}", None, bed.key)[0] == 200


@pytest.mark.parametrize(
    "query",
    [
        "page=",
        "page=1",
        "page=1-0",
        f"page=-1-{'0' * 64}",
        f"page=1-{'G' * 64}",
        f"page={'9' * 16}-{'0' * 64}",
        f"page=1-{'0' * 65}",
        "page=%00",
        "page=1-" + "%D9%A1" * 64,
        "limit=0",
        "limit=501",
        "limit=x",
    ],
)
def test_a_page_that_nobody_was_told_is_a_400(bed: Bed, query: str):
    """It names the parameter."""
    status, _, raw = bed.fetch("GET", f"/v1/jobs?{query}", None, bed.key)
    assert status == 400, raw
    assert json.loads(raw)["detail"].startswith(query.partition("=")[0])


@pytest.mark.parametrize("page", [f"0-{'0' * 64}", f"{'9' * 15}-{'f' * 64}"])
def test_the_ends_of_time_are_places_too(bed: Bed, page: str):
    """Behind everything there is nothing; before everything there is all."""
    assert bool(listed(bed, f"?page={page}")["jobs"]) is page.startswith("9")


def array(tasks: int) -> JobArray:
    return JobArray(SPEC, (Root(bytes(range(32)), 1, 1),) * tasks)


def wished(tasks: int = 1, **wishes: Any) -> bytes:
    job = JobArray(SPEC) if tasks == 1 else array(tasks)
    return json.dumps({"job": b64encode(job.canonical()).decode(), **wishes}).encode()


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ({"replicas": 1}, {"replicas": 0}),
        ({"replicas": 16}, {"replicas": 17}),
        ({"retries": 0}, {"retries": -1}),
        ({"retries": 10}, {"retries": 11}),
        ({"tasks": 625, "replicas": 16}, {"tasks": 626, "replicas": 16}),
        ({"tasks": 10_000}, {"tasks": 10_001}),
        *(
            ({name: value}, {name: wrong})
            for name in ("max_price_wei", "max_hourly_wei", "deadline_s")
            for value, wrong in ((0, -1), (2**53 - 1, 2**53))
        ),
    ],
    ids=str,
)
def test_each_wish_has_ends(bed: Bed, right: dict[str, Any], wrong: dict[str, Any]):
    """At the bound a plan is made; one beyond it is a 400, and not a plan for something else."""
    status, _, raw = bed.fetch("POST", "/v1/jobs/plan", wished(**right), bed.key)
    assert status == 200, raw
    if wrong.get("tasks", 1) > 10_000:
        with pytest.raises(ValueError, match="tasks"):
            wished(**wrong)
        return
    status, _, raw = bed.fetch("POST", "/v1/jobs/plan", wished(**wrong), bed.key)
    assert (status, problem(raw)) == (400, "invalid_request"), raw


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/plan"])
def test_a_body_has_an_end(bed: Bed, path: str):
    """4 MiB are read, padded with blanks as they may be; one byte more is a 413, whoever says what length."""
    most = 4 * 1024 * 1024
    body = wished(replicas=0)
    padded = body + b" " * (most - len(body))
    assert bed.fetch("POST", path, padded, bed.key)[0] == 400
    assert bed.fetch("POST", path, padded + b" ", bed.key)[0] == 413


@pytest.mark.parametrize(("length", "found"), [(255, 409), (256, 400)])
def test_a_key_for_once_has_an_end(bed: Bed, length: int, found: int):
    """With 255 characters the market is asked, where nobody has so many cores; with 256 nobody is."""
    put(bed, MODULE)
    greedy = JobSpec(
        name="greedy", check="wasm", image=SPEC.image, fuel=10**9, resources=Resources(cpu_milli=1_024_000)
    )
    status, _, raw = bed.fetch("POST", "/v1/jobs", asked(greedy), bed.key, Idempotency_Key="k" * length)
    assert status == found, raw


@pytest.mark.parametrize("after", [2**53 + 1, -1, "x", ""])
def test_a_place_in_a_log_has_ends(bed: Bed, after: object):
    """From the first event on it is told; a place that no log can have is a 400."""
    job = listed(bed)["jobs"][-1]["id"]
    assert b'"seq":1,' in bed.fetch("GET", f"/v1/jobs/{job}/logs?after=0", None, bed.key)[2]
    assert bed.fetch("GET", f"/v1/jobs/{job}/logs?after={after}", None, bed.key)[0] == 400
