"""Jobs at a gateway: what is sent and told, and the calls. The server side answers exactly these shapes.

    POST   /v1/jobs/plan            JobRequest → Plan         nothing is begun, nothing costs
    HEAD   /v1/content/{digest}     200 or 404
    PUT    /v1/content/{digest}     the bytes → 201 or 200; 422 `digest-differs` where they aren't the digest's
    GET    /v1/content/{digest}     the bytes; 404
    POST   /v1/jobs                 JobRequest (Idempotency-Key) → 201 Job; 402, 409 `not-placed` with a Plan, 424 `content-missing`
    GET    /v1/jobs                 JobList, newest first; ?limit= and ?page=, the `next` of the one before
    GET    /v1/jobs/{id}            Job
    GET    /v1/jobs/{id}/logs       server-sent JobEvents, from ?after=SEQ on, until one of kind `end`
    GET    /v1/jobs/{id}/audit      JobAudit
    DELETE /v1/jobs/{id}            Job: cancelled, and what that cost

All of it belongs to an account (bearer key). Errors are RFC 9457 problems. Digests are `0x` and 64 hex digits of a BLAKE3; a
folder is the digest of its listing (`work.batch.core.tree.Tree`, canonical bytes), which is content like any other.
"""

from collections.abc import Iterable, Iterator
from urllib.parse import quote

import httpx
import msgspec

from clusterai.sdk.client import TIMEOUT_S, Client, Unreachable
from clusterai.sdk.jobshapes import (
    MOST_CONTENT_BYTES,
    Candidate,
    CloseReason,
    Deed,
    Job,
    JobAudit,
    JobEvent,
    JobList,
    JobRequest,
    LeaseAudit,
    Plan,
    Refusal,
    RefusalCode,
    Refusing,
    Relaxation,
    Step,
    Task,
    TaskState,
    Verification,
    packed,
    unpacked,
)


class Jobs:
    """A gateway's jobs, through its client.

    with Client() as client:
        job = Jobs(client).submit(request)
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def plan(self, request: JobRequest) -> Plan:
        return self._client.told("POST", "/v1/jobs/plan", Plan, json=request)

    def submit(self, request: JobRequest, idempotency_key: str = "") -> Job:
        """
        Raises:
            ApiError: 402 the account has too little credit; 409 nobody can take it; 424 the gateway lacks content.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._client.told("POST", "/v1/jobs", Job, json=request, headers=headers)

    def list(self, limit: int = 50, page: str = "") -> JobList:
        """
        Args:
            page: `next` of the list before; the newest jobs without it.
        """
        params: dict[str, str | int] = {"limit": limit, **({"page": page} if page else {})}
        return self._client.told("GET", "/v1/jobs", JobList, params=params)

    def all(self) -> Iterator[Job]:
        """Every job that the gateway still knows, newest first."""
        page = self.list(500)
        yield from page.jobs
        while page.next:
            page = self.list(500, page.next)
            yield from page.jobs

    def show(self, job_id: str) -> Job:
        return self._client.told("GET", f"/v1/jobs/{quote(job_id, safe='')}", Job)

    def cancel(self, job_id: str) -> Job:
        return self._client.told("DELETE", f"/v1/jobs/{quote(job_id, safe='')}", Job)

    def audit(self, job_id: str) -> JobAudit:
        return self._client.told("GET", f"/v1/jobs/{quote(job_id, safe='')}/audit", JobAudit)

    def follow(self, job_id: str, after: int = 0) -> Iterator[JobEvent]:
        """Events until the one of kind `end`.

        Raises:
            Unreachable: the gateway went away; go on with the last `seq`.
        """
        path = f"/v1/jobs/{quote(job_id, safe='')}/logs"
        timeout = httpx.Timeout(TIMEOUT_S, read=60.0)
        with self._client.streamed(
            "GET", path, params={"after": after}, headers={"Accept": "text/event-stream"}, timeout=timeout
        ) as response:
            try:
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        event = msgspec.json.decode(line[6:], type=JobEvent)
                        yield event
                        if event.kind == "end":
                            return
            except httpx.HTTPError as error:
                raise Unreachable(self._client.base_url, str(error) or type(error).__name__) from None
        raise Unreachable(self._client.base_url, "the stream of events broke off")

    # --- content ---

    def has(self, digest: bytes) -> bool:
        return self._client.ask("HEAD", f"/v1/content/0x{digest.hex()}", missing_ok=True).is_success

    def put(self, digest: bytes, content: bytes | Iterable[bytes]) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        self._client.ask(
            "PUT", f"/v1/content/0x{digest.hex()}", content=content, headers=headers, timeout=600.0
        )

    def get(self, digest: bytes) -> Iterator[bytes]:
        """Content in pieces, as it comes: who takes it checks that it has this digest.

        Raises:
            ApiError: 404, the gateway doesn't have it.
        """
        timeout = httpx.Timeout(TIMEOUT_S, read=60.0)
        with self._client.streamed("GET", f"/v1/content/0x{digest.hex()}", timeout=timeout) as response:
            try:
                yield from response.iter_bytes()
            except httpx.HTTPError as error:
                raise Unreachable(self._client.base_url, str(error) or type(error).__name__) from None


__all__ = [
    "MOST_CONTENT_BYTES",
    "Candidate",
    "CloseReason",
    "Deed",
    "Job",
    "JobAudit",
    "JobEvent",
    "JobList",
    "JobRequest",
    "Jobs",
    "LeaseAudit",
    "Plan",
    "Refusal",
    "RefusalCode",
    "Refusing",
    "Relaxation",
    "Step",
    "Task",
    "TaskState",
    "Verification",
    "packed",
    "unpacked",
]
