"""A gateway of jobs in one process: it keeps content and jobs in memory and answers as `sdk.jobs` says."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import msgspec
from blake3 import blake3

from clusterai.sdk.jobs import Job, JobAudit, JobEvent, JobRequest, Plan

Perform = Callable[["FakeGateway", JobRequest], Job]


class FakeGateway:
    def __init__(self) -> None:
        self.content: dict[bytes, bytes] = {}
        self.jobs: dict[str, Job] = {}
        self.events: dict[str, list[JobEvent]] = {}
        self.audits: dict[str, JobAudit] = {}
        self.keys: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.plan: Callable[[JobRequest], Plan] | None = None
        self.perform: Perform | None = None
        self.url = ""

    # What each request is answered with: a status and a body.

    def answer(
        self, method: str, path: str, query: dict[str, list[str]], body: bytes, key: str
    ) -> tuple[int, Any]:
        self.asked.append((method, path))
        match method, path.strip("/").split("/")[1:]:
            case "POST", ["jobs", "plan"] if self.plan:
                return 200, self.plan(msgspec.json.decode(body, type=JobRequest))
            case "POST", ["jobs"] if self.perform:
                if key in self.keys:
                    return 200, self.jobs[self.keys[key]]
                job = self.perform(self, msgspec.json.decode(body, type=JobRequest))
                self.keys[key] = job.id
                self.jobs[job.id] = job
                return 201, job
            case "GET", ["jobs"]:
                return 200, {"jobs": list(self.jobs.values())[::-1], "next": ""}
            case "GET", ["jobs", job_id] if job_id in self.jobs:
                return 200, self.jobs[job_id]
            case "DELETE", ["jobs", job_id] if job_id in self.jobs:
                job = self.jobs[job_id]
                tasks = [
                    msgspec.structs.replace(
                        task, state="closed", reason="CANCELLED_BEFORE_START", why="cancelled"
                    )
                    for task in job.tasks
                ]
                self.jobs[job_id] = msgspec.structs.replace(job, state="closed", tasks=tasks)
                return 200, self.jobs[job_id]
            case "GET", ["jobs", job_id, "audit"] if job_id in self.audits:
                return 200, self.audits[job_id]
            case "GET", ["jobs", job_id, "logs"] if job_id in self.events:
                after = int(query.get("after", ["0"])[0])
                return 200, [event for event in self.events[job_id] if event.seq > after]
            case "HEAD" | "GET", ["content", name] if bytes.fromhex(name[2:]) in self.content:
                return 200, self.content[bytes.fromhex(name[2:])]
            case "PUT", ["content", name]:
                if blake3(body).digest() != bytes.fromhex(name[2:]):
                    return 422, {
                        "type": "urn:clusterai:digest-differs",
                        "detail": "these bytes have another digest",
                    }
                self.content[bytes.fromhex(name[2:])] = body
                return 201, b""
            case _:
                return 404, {"type": "urn:clusterai:not-found", "detail": f"there is no {path}"}


@contextmanager
def running() -> Generator[FakeGateway]:
    """On a port of its own until the block ends."""
    gateway = FakeGateway()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            parts = urlparse(self.path)
            body = self._body()
            key = self.headers.get("Idempotency-Key", "")
            status, answer = gateway.answer(self.command, parts.path, parse_qs(parts.query), body, key)
            if parts.path.endswith("/logs") and status == 200:
                kind = "text/event-stream"
                raw = b"".join(b"id: %d\ndata: %s\n\n" % (it.seq, msgspec.json.encode(it)) for it in answer)
            elif isinstance(answer, bytes):
                kind, raw = "application/octet-stream", answer
            else:
                kind = "application/json" if status < 400 else "application/problem+json"
                raw = msgspec.json.encode(answer)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _handle  # noqa: N815  the base class calls them so

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", "0")))
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    gateway.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
