"""A gateway's configuration; where its values come from is `runtime/adapters/config.py`."""

from typing import Annotated, Literal

from msgspec import Meta

from clusterai.gateway.adapters.calls.calling import CallConfig
from clusterai.gateway.core.errands import Terms
from clusterai.runtime.adapters.config import Daemon, Part, Port, Seconds, Wei


class MarketConfig(Part, frozen=True, kw_only=True):
    """Whole machines that are offered here.

    Attributes:
        machine_stake_wei: an operator lists one machine for each so much at stake; 0 is 10,000 machines for everyone.
        most_machines: of all operators together; each takes some 3 KB.
    """

    machine_stake_wei: Wei = 100 * 10**9
    most_machines: Annotated[int, Meta(ge=1, le=1_000_000)] = 200_000


class Config(Daemon, frozen=True, kw_only=True):
    """One gateway.

    Attributes:
        serve: names of the models that clients may ask for.
        host, port: where HTTP is served; with `tls_certificate` and `tls_key` (PEM files) as HTTPS.
        link_host, link_port: where providers and validators dial in.
        link_url: the same as they reach it, `wss://HOST:PORT`, told to whoever wants to join; empty for the host they asked at.
        least_provider_stake_wei, least_validator_stake_wei: who has less is refused.
        grace_s: how long answers may go on after SIGTERM.
        patience_s: how long a request may wait for a free provider.
        most_body: bytes of a request.
        most_running: requests at once.
        wallets: whether wallets may pay with the request (x402); its till key is made in `data`.
        keep_transcripts_s: how long encrypted transcripts are kept for replays.
        survives: `process` loses nothing when the process is killed; `power` also when the machine loses power, for 1-5 ms
            a request.
        least_job_stake_wei: a job that is to be verified goes to nobody with less.
        content_bytes: of uploads and of jobs' outputs, all accounts together.
        keep_jobs_s: how long a job is listed after its end, and its Idempotency-Key known. Never forgotten is one that money hangs on.
        bait_ppm: beside so many of a million verifiable leases another is planted for which nothing is run, so that an auditor who copies
            what providers tell loses its bond and its stake. It costs the gateway about that share of what it pays providers, and
            is enough for auditors with a stake of 34 times a lease's price; where the weakest validator has less, more is planted, up
            to beside 13 % where its stake is as good as nothing and the provider's is ten prices. 0 plants none.
        bait_spread_s: bait is opened at some moment within so long of the lease that it looks like, not just behind it.
        most_jobs_kept: of ended jobs; beyond it the account with most of them loses its oldest.
        market: which offers of whole machines are listed.
        calls: what calls to vaults may hold and take.
    """

    serve: tuple[str, ...] = ("smollm2-135m",)
    host: str = "127.0.0.1"
    port: Port = 8080
    link_host: str = "127.0.0.1"
    link_port: Port = 8081
    link_url: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    least_provider_stake_wei: Wei = 1
    least_validator_stake_wei: Wei = 1
    grace_s: Seconds = 3.0
    patience_s: Seconds = 10.0
    most_body: int = 8 * 1024 * 1024
    most_running: int = 4096
    wallets: bool = True
    keep_transcripts_s: int = 7 * 24 * 3600
    survives: Literal["process", "power"] = "process"
    least_job_stake_wei: Wei = 1
    content_bytes: Annotated[int, Meta(ge=1024**2, le=2**53)] = 16 * 1024**3
    keep_jobs_s: Annotated[int, Meta(ge=3600, le=10 * 366 * 86_400)] = 30 * 86_400
    most_jobs_kept: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    bait_ppm: Annotated[int, Meta(ge=0, le=1_000_000)] = 4_000
    bait_spread_s: Annotated[int, Meta(ge=0, le=86_400)] = 3_600
    terms: Terms = Terms()
    market: MarketConfig = MarketConfig()
    calls: CallConfig = CallConfig()
