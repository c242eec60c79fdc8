"""The HTTP endpoints of jobs, as `sdk.jobs` describes them. Errors are RFC 9457 problems."""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from clusterai.gateway.adapters.door import Admission, Doors
from clusterai.gateway.adapters.handling import body_of, json_of, missing, number
from clusterai.gateway.adapters.jobs import views
from clusterai.gateway.adapters.jobs.leasing import Leasing
from clusterai.gateway.core.faults import Fault
from clusterai.gateway.core.jobbait import Tally
from clusterai.gateway.core.jobstate import Answer, Job
from clusterai.protocol import ids
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Address, Digest, hex0x
from clusterai.sandbox import Damaged, NoSuchBlob, StoreFull
from clusterai.sandbox.adapters.store import told
from clusterai.sdk.jobshapes import MOST_CONTENT_BYTES, JobRequest, unpacked
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.spec import MOST_REPLICAS, MOST_RETRIES, JobArray, decode_array

MOST_BODY = 4 * 1024 * 1024
MOST_LISTED = 500
MOST_LEASES = 10_000
KEEP_ALIVE_S = 10.0
EVERY_METHOD = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")


class JobPages:
    """Handlers of `/v1/jobs` and `/v1/content`."""

    def __init__(self, leasing: Leasing, doors: Doors, scratch: Path) -> None:
        """
        Args:
            scratch: for uploads that aren't whole yet.
        """
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._leasing = leasing
        self._doors = doors
        self._scratch = scratch
        self.closing = asyncio.Event()

    def bait(self) -> Tally:
        """What the gateway itself planted: no job of anybody's."""
        return self._leasing.desk.planting.tally()

    def routes(self) -> list[Route]:
        return [
            Route("/v1/jobs/plan", self.plan, methods=EVERY_METHOD),
            Route("/v1/jobs", self.jobs, methods=["GET", "POST"]),
            Route("/v1/jobs/{id}", self.job, methods=["GET", "DELETE"]),
            Route("/v1/jobs/{id}/logs", self.logs, methods=["GET"]),
            Route("/v1/jobs/{id}/audit", self.audit, methods=["GET"]),
            Route("/v1/content/{id}", self.content, methods=["GET", "HEAD", "PUT"]),
        ]

    def lends(self, provider: Address) -> dict[str, Any] | None:
        """What this gateway heard of its lending, and how its price of a core stands among others'; None: nothing."""
        return self._leasing.desk.placing.standing(provider)

    # --- jobs ---

    async def plan(self, request: Request) -> Response:
        if request.method != "POST":
            # Else the next route would take it for a job of that name.
            raise HTTPException(405, headers={"Allow": "POST"})
        await self._admit(request, "inference")
        array, wishes = await self._asked(request)
        return json_of(self._leasing.desk.placing.plan(array, wishes))

    async def jobs(self, request: Request) -> Response:
        """GET lists, POST submits: one route, as of two only the first would stand in a 405's `Allow`."""
        if request.method != "POST":
            admission = await self._admit(request, "read")
            limit = number(request, "limit", 50, 1, MOST_LISTED)
            before = _place(request)
            mine = [it for it in self._leasing.desk.jobs.values() if it.account == admission.account]
            places = sorted(((it.at_s, it.id) for it in mine), reverse=True)
            left = places if before is None else [it for it in places if it < before]
            page = [views.job(self._leasing.desk.jobs[job]) for _, job in left[:limit]]
            rest = f"{left[limit - 1][0]}-{left[limit - 1][1].hex()}" if len(left) > limit else ""
            return json_of({"jobs": page, "next": rest})
        admission = await self._admit(request, "inference")
        array, wishes = await self._asked(request)
        self._require_content(admission.account, array)
        key = request.headers.get("idempotency-key", "")
        if len(key) > 255:
            raise _invalid("Idempotency-Key has at most 255 characters", "Idempotency-Key")
        answer = await self._leasing.submit(admission.account, array.canonical(), wishes, key)
        if answer.job is None:
            return self._refused(answer)
        return json_of(views.job(self._leasing.desk.jobs[answer.job]), 201)

    def _refused(self, answer: Answer) -> Response:
        if answer.refusal == "not-placed":
            why = "; ".join(f"{it.code}: {it.why}" for it in (answer.plan.reasons if answer.plan else []))
            body = {
                "type": "urn:clusterai:problem:not-placed",
                "title": "nobody can take this job now",
                "status": 409,
                "detail": why or "nobody can take it now",
                "plan": answer.plan,
            }
            return Response(msgspec.json.encode(body), 409, media_type="application/problem+json")
        if answer.refusal == "insufficient_credit":
            raise Fault(
                402,
                "insufficient_quota",
                "insufficient_quota",
                "the account's credit doesn't cover the most that this job may cost: `clusterai account` shows it",
            )
        raise _invalid(answer.refusal, "job")

    async def job(self, request: Request) -> Response:
        """GET shows it, DELETE cancels it."""
        if request.method == "DELETE":
            found = self._mine(request, await self._admit(request, "inference"))
            self._leasing.cancel(found.id)
        else:
            found = self._mine(request, await self._admit(request, "read"))
        return json_of(views.job(self._leasing.desk.jobs[found.id]))

    async def audit(self, request: Request) -> Response:
        found = self._mine(request, await self._admit(request, "read"))
        return json_of(views.audit(self._leasing, found))

    async def logs(self, request: Request) -> Response:
        found = self._mine(request, await self._admit(request, "read"))
        after = number(request, "after", 0, 0, 2**53)
        return StreamingResponse(self._feed(found, after), media_type="text/event-stream")

    async def _feed(self, job: Job, after: int) -> AsyncIterator[bytes]:
        yield b": hello\n\n"
        while not self.closing.is_set():
            fresh = self._leasing.story.since(job.id, after)
            for seq, body in fresh:
                after = seq
                yield b"id: %d\ndata: %b\n\n" % (seq, body)
                if b'"kind":"end"' in body:
                    return
            if not fresh:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        await self._leasing.story.news(job.id)
                except TimeoutError:
                    yield b": still here\n\n"

    # --- content ---

    async def content(self, request: Request) -> Response:
        if request.method == "PUT":
            return await self._put(request)
        admission = await self._admit(request, "read")
        digest = _digest(request)
        store = self._leasing.store
        if not self._leasing.story.owns(admission.account, digest) or digest not in store:
            raise missing("this account has no such content here: PUT it, or fetch a job's output")
        headers = {"content-length": str(store.size(digest))}
        if request.method == "HEAD":
            return Response(None, 200, headers)
        try:
            await asyncio.to_thread(store.verify, digest)
        except (Damaged, NoSuchBlob) as error:
            raise Fault(500, "server_error", "damaged", str(error)) from None
        return StreamingResponse(_read(store.path(digest)), 200, headers, "application/octet-stream")

    async def _put(self, request: Request) -> Response:
        admission = await self._admit(request, "inference")
        digest = _digest(request)
        store, story = self._leasing.store, self._leasing.story
        known = digest in store
        try:
            with tempfile.NamedTemporaryFile(dir=self._scratch) as file:
                size, hasher = 0, blake3()
                async for piece in request.stream():
                    size += len(piece)
                    if size > MOST_CONTENT_BYTES:
                        raise Fault(
                            413,
                            "invalid_request_error",
                            "request_too_large",
                            f"one content has at most {MOST_CONTENT_BYTES} bytes",
                        )
                    hasher.update(piece)
                    file.write(piece)
                # Before anything is kept: what lies under its true name may be somebody's.
                if hasher.digest() != digest:
                    raise Fault(
                        422,
                        "invalid_request_error",
                        "digest-differs",
                        f"what came has the digest 0x{hasher.hexdigest()}, and the path says {hex0x(digest)}",
                    )
                file.flush()
                await asyncio.to_thread(store.put_file, Path(file.name))
        except OSError as error:
            if not isinstance(full := told(error), StoreFull):
                raise
            raise Fault(507, "server_error", "store_full", str(full)) from None
        story.own(admission.account, [digest])
        return Response(None, 200 if known else 201)

    def _require_content(self, account: Digest, array: JobArray) -> None:
        """
        Raises:
            Fault: 424, something that the job reads was never uploaded by this account.
        """
        wanted: set[Digest] = set()
        for at in range(len(array)):
            wanted |= self._leasing.inputs(array.task(at))
        missing = [
            it for it in wanted if it not in self._leasing.store or not self._leasing.story.owns(account, it)
        ]
        if missing:
            raise Fault(
                424,
                "invalid_request_error",
                "content-missing",
                f"upload first: {', '.join(hex0x(it) for it in missing[:5])}"
                + (" …" if len(missing) > 5 else ""),
            )

    # --- helpers ---

    async def _admit(self, request: Request, scope: str) -> Admission:
        return await self._doors.admit(
            request.method, request.url.path, dict(request.headers.raw), b"", scope
        )

    async def _asked(self, request: Request) -> tuple[JobArray, Wishes]:
        raw = await body_of(request, MOST_BODY)
        try:
            asked = msgspec.json.decode(raw, type=JobRequest)
            array = decode_array(unpacked(asked.job))
        except (msgspec.DecodeError, ValueError, RecursionError, Malformed) as error:
            raise _invalid(str(error), "job") from None
        if not 1 <= asked.replicas <= MOST_REPLICAS or not 0 <= asked.retries <= MOST_RETRIES:
            raise _invalid(f"replicas: 1 to {MOST_REPLICAS}; retries: 0 to {MOST_RETRIES}", "replicas")
        if len(array) * asked.replicas > MOST_LEASES:
            raise _invalid(f"tasks times replicas: at most {MOST_LEASES}", "replicas")
        for name in ("max_price_wei", "max_hourly_wei", "deadline_s"):
            value = getattr(asked, name)
            if value is not None and not 0 <= value < 2**53:
                raise _invalid(f"{name} is a whole number from 0 to 2^53", name)
        wishes = Wishes(
            max_price_wei=asked.max_price_wei,
            max_hourly_wei=asked.max_hourly_wei,
            deadline_s=asked.deadline_s,
            replicas=asked.replicas,
            retries=asked.retries,
            retry_until_placed=asked.retry_until_placed,
        )
        return array, wishes

    def _mine(self, request: Request, admission: Admission) -> Job:
        found = self._leasing.desk.jobs.get(_digest(request))
        if found is None or found.account != admission.account:
            raise missing("this account has no such job: GET /v1/jobs lists them")
        return found


def _digest(request: Request) -> Digest:
    try:
        return ids.digest(request.path_params["id"])
    except ids.BadId as error:
        raise _invalid(f"id: {error}", "id") from None


def _place(request: Request) -> tuple[int, Digest] | None:
    """Where the page before ended, as its `next` said; jobs that are begun or forgotten meanwhile move nothing."""
    text = request.query_params.get("page")
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,15})-([0-9a-f]{64})", text, re.ASCII)
    if found is None:
        raise _invalid("page is the `next` of the page before", "page")
    return int(found[1]), Digest(bytes.fromhex(found[2]))


def _invalid(why: str, param: str) -> Fault:
    return Fault(400, "invalid_request_error", "invalid_request", why, param)


async def _read(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, 1 << 20):
            yield piece
