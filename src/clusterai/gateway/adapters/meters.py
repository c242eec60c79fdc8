"""Numbers for Prometheus: measured here, in base units."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from clusterai.gateway.adapters.desk import Call
from clusterai.gateway.core.jobbait import Tally

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Meters:
    """One gateway's metrics, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.faults = Counter(
            "clusterai_gateway_faults",
            "Requests refused or failed",
            ["status", "code"],
            registry=self.registry,
        )
        self.gone = Counter("clusterai_gateway_departed", "Clients that left early", registry=self.registry)
        self._requests = Counter(
            "clusterai_gateway_requests", "Requests answered", ["model"], registry=self.registry
        )
        self._tokens = Counter(
            "gen_ai_client_token_usage",
            "Tokens, as receipts state them",
            ["gen_ai_token_type", "model"],
            registry=self.registry,
        )
        self._charged = Counter(
            "clusterai_gateway_charged_wei",
            "Charged to accounts, in the token's smallest unit",
            registry=self.registry,
        )
        self._seconds = Histogram(
            "gen_ai_server_request_duration_seconds", "From first byte in to last byte out", ["model"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.linked = Gauge("clusterai_gateway_providers", "Providers linked now", registry=self.registry)
        self.running = Gauge("clusterai_gateway_errands", "Answers on their way", registry=self.registry)
        self.bait = Gauge(
            "clusterai_gateway_bait",
            "Leases planted for auditors who copy: planted, open, drawn, caught",
            ["state"],
            registry=self.registry,
        )
        self.bait_wei = Gauge(
            "clusterai_gateway_bait_wei", "What they cost the gateway itself", registry=self.registry
        )
        self._children: dict[str, tuple[Counter, Histogram, Counter, Counter]] = {}

    def ended(self, model: str, call: Call, seconds: float) -> None:
        children = self._children.get(model)
        if children is None:
            # Looking a label up takes longer than counting.
            children = self._children[model] = (
                self._requests.labels(model),
                self._seconds.labels(model),
                self._tokens.labels("input", model),
                self._tokens.labels("output", model),
            )
        children[0].inc()
        children[1].observe(seconds)
        for choice in call.choices.values():
            if choice.done is not None and choice.done.charged is not None:
                receipt = choice.done.charged.receipt
                children[2].inc(receipt.input_units)
                children[3].inc(receipt.output_units)
                if not call.settled:
                    self._charged.inc(receipt.amount_wei)
        self._charged.inc(call.charged_wei)

    def baited(self, tally: Tally) -> None:
        for state in ("planted", "open", "drawn", "caught"):
            self.bait.labels(state).set(getattr(tally, state))
        self.bait_wei.set(tally.cost_wei)

    def text(self) -> bytes:
        return generate_latest(self.registry)
