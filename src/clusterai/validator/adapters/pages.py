"""What a validator shows of itself on loopback: /healthz, /status for people, /metrics for Prometheus.

Three pages need no web framework: one request a connection, 8 kB of it read at most, within 5 s.
"""

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

Page = Callable[[], tuple[int, str, bytes]]
"""Status, content type and body."""

MOST_HEAD = 8192
PATIENCE_S = 5.0


class Meters:
    """This validator's numbers, in Prometheus base units."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.notes = Counter(
            "clusterai_validator_events", "What the auditor noted, by kind.", ["kind"], registry=self.registry
        )
        self.tokens = Counter(
            "clusterai_validator_tokens_checked", "Tokens drawn again.", registry=self.registry
        )
        self.mismatches = Counter(
            "clusterai_validator_tokens_mismatched", "Tokens that came out otherwise.", registry=self.registry
        )
        self.check_seconds = Counter(
            "clusterai_validator_check_seconds",
            "Time from asking for a check to its findings.",
            registry=self.registry,
        )
        self.open_epochs = Gauge(
            "clusterai_validator_open_epochs", "Committed epochs not yet judged.", registry=self.registry
        )
        self.waiting = Gauge(
            "clusterai_validator_checks_waiting", "Checks in the queue.", registry=self.registry
        )
        self.links = Gauge("clusterai_validator_links", "Gateways linked.", registry=self.registry)
        self.behind = Gauge(
            "clusterai_validator_blocks_behind", "Blocks not yet read.", registry=self.registry
        )

    def page(self) -> tuple[int, str, bytes]:
        return 200, CONTENT_TYPE_LATEST, generate_latest(self.registry)


class Pages:
    """A server of fixed pages."""

    def __init__(self, pages: dict[str, Page]) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, host, port, limit=MOST_HEAD)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        page = self._pages.get(words[1].split(b"?")[0].decode("latin-1")) if len(words) == 3 else None
        if page is None or words[0] not in (b"GET", b"HEAD"):
            names = " ".join(self._pages)
            status, kind, body = 404, "text/plain", f"there are {names}\n".encode()
        else:
            status, kind, body = page()
        reason = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}[status]
        lines = (
            f"HTTP/1.1 {status} {reason}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Connection: close",
        )
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if words[0] == b"HEAD" else body)
