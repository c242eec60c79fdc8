"""What a node shows of itself: metrics for Prometheus, a status file for people's tools, JSON logs for both."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIServer

import msgspec
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from clusterai.node.core.willing import Pause
from clusterai.protocol.ids import hex0x
from clusterai.runtime.adapters.link import LinkStatus

HOST = "127.0.0.1"


class LinkView(msgspec.Struct, frozen=True):
    """One gateway, as the status file tells of it."""

    gateway: str
    url: str
    up: bool
    why: str
    round_trip_ms: float | None


class ModelView(msgspec.Struct, frozen=True):
    """One model; `state` is `ready`, or what is being done."""

    name: str
    address: str
    state: str
    running: int
    queued: int
    tokens_per_s: float


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """DATA/status.json: rewritten whenever it changes, at most once a second; `pid` and `at_s` tell whether it is stale.

    Money is in the token's smallest unit. `owed`: receipts that no voucher covers yet. `vouched`: by the newest vouchers of
    all channels. `claimed`: taken to the chain, of which what isn't `settled` is held for the audit window. `pauses`: why
    nothing new is taken; none while it is. `withheld`: why the machine isn't offered to renters now.
    """

    pid: int
    at_s: int
    owner: str
    hot: str
    phase: str
    chain_block: int
    chain_trouble: str
    registered: bool
    barred: bool
    running: int
    receipts: int
    tokens: int
    owed_wei: int
    vouched_wei: int
    committed_wei: int
    claimed_wei: int
    settled_wei: int
    links: tuple[LinkView, ...]
    models: tuple[ModelView, ...]
    pauses: tuple[Pause, ...] = ()
    withheld: tuple[str, ...] = ()


def link_views(links: tuple[LinkStatus, ...]) -> tuple[LinkView, ...]:
    return tuple(
        LinkView(
            hex0x(it.gateway),
            it.url,
            it.up,
            it.why,
            None if it.round_trip_ms is None else round(it.round_trip_ms, 3),
        )
        for it in links
    )


class StatusFile:
    """A reader sees the last status or the new one, whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = b""

    def write(self, status: Status) -> None:
        bare = msgspec.json.encode(msgspec.structs.replace(status, at_s=0))
        if bare == self._last and self._path.exists():
            return
        aside = self._path.with_suffix(".partial")
        try:
            aside.write_bytes(msgspec.json.format(msgspec.json.encode(status)) + b"\n")
            aside.replace(self._path)
        except OSError:
            # Of a full disk, say: what nobody can read ends no work, and the next second tries again.
            return
        self._last = bare

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


class Metrics(Collector):
    """Prometheus metrics, read from a fresh `Status` at each scrape; `refused` and `noted` are counted here."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status
        self.refused: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()
        self._server: WSGIServer | None = None

    def listen(self, port: int) -> None:
        registry = CollectorRegistry()
        registry.register(self)
        self._server, _ = start_http_server(port, HOST, registry)

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def collect(self) -> Iterator[Metric]:
        now = self._status()
        prefix = "clusterai_node_"
        for name, value, text in (
            ("orders_running", now.running, "Orders in work"),
            ("chain_block", now.chain_block, "Newest block seen"),
            ("owed_wei", now.owed_wei, "Receipts that no voucher covers yet"),
            ("vouched_wei", now.vouched_wei, "Newest vouchers of all channels"),
            ("committed_wei", now.committed_wei, "Total of all epochs committed"),
            ("claimed_wei", now.claimed_wei, "Claimed from channels"),
            ("settled_wei", now.settled_wei, "Paid out after the audit window"),
            ("barred", int(now.barred), "1 after a conviction"),
            ("paused", int(bool(now.pauses)), "1 while nothing new is taken"),
        ):
            yield GaugeMetricFamily(prefix + name, text, value=value)
        yield CounterMetricFamily(prefix + "receipts", "Receipts made by this process", value=now.receipts)
        yield CounterMetricFamily(prefix + "tokens", "Tokens streamed by this process", value=now.tokens)
        links = GaugeMetricFamily(prefix + "link_up", "Whether a gateway is linked", labels=["gateway"])
        trips = GaugeMetricFamily(prefix + "link_round_trip_seconds", "Of the last ping", labels=["gateway"])
        for link in now.links:
            links.add_metric([link.gateway], int(link.up))
            if link.round_trip_ms is not None:
                trips.add_metric([link.gateway], link.round_trip_ms / 1000)
        ready = GaugeMetricFamily(prefix + "model_ready", "Whether a model is served", labels=["model"])
        queued = GaugeMetricFamily(prefix + "model_queued", "Orders waiting in the engine", labels=["model"])
        rates = GaugeMetricFamily(prefix + "model_tokens_per_second", "Of the last seconds", labels=["model"])
        for model in now.models:
            ready.add_metric([model.name], int(model.state == "ready"))
            queued.add_metric([model.name], model.queued)
            rates.add_metric([model.name], model.tokens_per_s)
        yield from (links, trips, ready, queued, rates)
        for name, counts, text, label in (
            ("refused", self.refused, "Orders refused", "code"),
            ("noted", self.noted, "Things worth an operator's look", "what"),
        ):
            family = CounterMetricFamily(prefix + name, text, labels=[label])
            for value, count in counts.items():
                family.add_metric([value], count)
            yield family


def now_s() -> int:
    return int(time.time())
