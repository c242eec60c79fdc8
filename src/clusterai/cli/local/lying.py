"""The demonstration with a job: a provider answers it with something else than it came to, and has to defend that.

    choose ─ let it lie ─ restart ─ job ─┬─ it commits to its states, the beacon draws one segment
                                         ├─ an auditor runs that again, and comes to another state; so does a second one
                                         ├─ dispute: both are led to the one step in which they part, referees run it
                                         └─ FRAUD: stake slashed, requester refunded

Nothing here tells an auditor whom to look at: newcomers' jobs are always audited. All that is told was read from
the job's story, which is the chain's.
"""

import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from clusterai.cli import say
from clusterai.cli.failure import Exit, Failure
from clusterai.cli.jobs import carry
from clusterai.cli.local import cheating
from clusterai.cli.local.cheating import Teller, Told
from clusterai.cli.local.folder import Cheat, DataFolder
from clusterai.cli.local.progress import Progress
from clusterai.cli.settings import command
from clusterai.protocol.ids import Digest
from clusterai.protocol.money import show as money
from clusterai.sandbox import BlobStore
from clusterai.sandbox.adapters.wasm import sample
from clusterai.sdk import Unreachable
from clusterai.sdk.jobs import Jobs
from clusterai.sdk.jobshapes import JobRequest, LeaseAudit, Step, packed
from clusterai.work.batch.adapters.gather import contents
from clusterai.work.batch.spec import MIB, Image, JobArray, JobSpec, Resources

BLOCKS = 27
PRIMES = "132937"
"""below 27 x 65,536: what the job would say"""
STEPS, SEGMENTS, FUEL = 4, 8, 8 * 20_000_000
"""Seven segments of four steps: a block of some 3.3 million units each, and one step that writes the result."""
SPEC_S = 60
LEAST_VALIDATORS = 3
OFFER_S = 30.0
POLL_S = 0.25


class Plan(msgspec.Struct, frozen=True):
    """Who lies."""

    node: str
    provider: str


class Story(msgspec.Struct, frozen=True):
    """What became of the lie. `answer`: what the provider handed over, `right` what it should have been."""

    plan: Plan
    caught: bool
    seconds: float
    job: str
    lease: str
    answer: str
    right: str
    rounds: int
    referees: int
    slashed_wei: int
    burned_wei: int
    bounty_wei: int
    refunded_wei: int
    steps: tuple[Told, ...]


def choose(folder: DataFolder, wanted: str | None) -> Plan:
    """
    Raises:
        Failure: no such node, nobody honest is left, or too few validators to judge.
    """
    state = folder.running()
    validators = sum(one.kind == "validator" for one in state.services)
    if validators < LEAST_VALIDATORS:
        raise Failure(
            f"{validators} validator{'s' if validators > 1 else ''} can't judge a contested audit",
            "one accuses, another looks again, and somebody else has to decide",
            f"{command('down', folder.root)}, and then {command(f'up --validators {LEAST_VALIDATORS + 1}', folder.root)}",
            Exit.NOT_RUNNING,
        )
    return Plan(*cheating.honest(folder, state, wanted))


def run(folder: DataFolder, plan: Plan, deadline_s: float, json: bool) -> int:
    """Carry the plan out and tell the story; the exit code says whether the lie was found in time."""
    state = folder.running()
    teller = Teller(json)
    with cheating.client_of(folder, state) as client, tempfile.TemporaryDirectory() as scratch:
        store = BlobStore(Path(scratch), 64 * MIB)
        with Progress() as progress:
            progress.show(f"restarting {plan.node} as a liar")
            cheating.make_cheat(folder, state, plan.node, Cheat(lies=True))
            cheating.await_state(client, plan.provider, "ready")
        jobs = Jobs(client)
        array = JobArray(_spec(store), ())
        price_wei, others_wei = _prices(jobs, array, plan.provider)
        teller.start()
        text = f"{plan.node} would count primes for {money(price_wei)}, the next one for {money(others_wei)}"
        teller.tell("offered", text, price_wei=price_wei, others_wei=others_wei)
        carry.upload(jobs, contents(array, store), store, lambda _: None)
        # Nobody else does it for so little, whatever else a market goes by.
        job = jobs.submit(JobRequest(job=packed(array.canonical()), max_price_wei=price_wei))
        story = _watch(jobs, job.id, plan, teller, store, deadline_s)
    if json:
        say.emit(story)
    else:
        _conclude(folder, story)
    return Exit.OK if story.caught else Exit.UNTRUE


def _spec(store: BlobStore) -> JobSpec:
    """Primes, by the module that comes with us."""
    return JobSpec(
        name="primes",
        check="wasm",
        image=Image("wasm", store.put(sample())),
        argv=(str(BLOCKS),),
        outputs=("primes.txt",),
        resources=Resources(memory_bytes=16 * MIB, disk_bytes=16 * MIB, time_s=SPEC_S),
        clock_s=int(time.time()),
        segments=SEGMENTS,
        steps=STEPS,
        fuel=FUEL,
    )


def _prices(jobs: Jobs, array: JobArray, liar: str) -> tuple[int, int]:
    """What the liar asks with the auditor's fee, and the cheapest other one: once its new offer is there.

    Raises:
        Failure: it didn't come.
    """
    ends_s = time.monotonic() + OFFER_S
    while time.monotonic() < ends_s:
        with contextlib.suppress(Unreachable):
            found = jobs.plan(JobRequest(job=packed(array.canonical()))).candidates
            prices = {it.provider.lower(): it.total_wei + it.audit_fee_wei for it in found}
            mine = prices.pop(liar.lower(), None)
            others = min(prices.values(), default=None)
            if mine is not None and others is not None and mine < others:
                return mine, others
        time.sleep(POLL_S)
    raise Failure(
        "the liar's offer didn't come", "at least one honest node has to lend as well", "clusterai status"
    )


# --- the story ---


def _watch(jobs: Jobs, job: str, plan: Plan, teller: Teller, store: BlobStore, deadline_s: float) -> Story:
    ends_s = time.monotonic() + deadline_s
    tale = _Tale(teller)
    answer = ""
    while time.monotonic() < ends_s and not tale.over:
        with contextlib.suppress(Unreachable):
            for lease in jobs.audit(job).leases:
                tale.take(lease)
            task = jobs.show(job).tasks[0]
            if task.output and not answer:
                answer = _answer(jobs, task.output, store)
                teller.tell(
                    "answered",
                    f"it hands over its result: {answer} primes; there are {PRIMES}",
                    answer=answer,
                )
        time.sleep(POLL_S)
    return Story(
        plan=plan,
        caught=tale.reason == "FRAUD",
        seconds=teller.after_s,
        job=job,
        lease=tale.lease,
        answer=answer,
        right=PRIMES,
        rounds=tale.rounds,
        referees=tale.referees,
        slashed_wei=tale.slashed.get("amount", 0),
        burned_wei=tale.slashed.get("burned", 0),
        bounty_wei=tale.slashed.get("bounty", 0),
        refunded_wei=_refunded_wei(jobs, job),
        steps=tuple(teller.steps),
    )


def _refunded_wei(jobs: Jobs, job: str) -> int:
    """Told by the gateway, which may be starting again just now.

    Raises:
        Failure: it stays away.
    """
    ends_s = time.monotonic() + OFFER_S
    while True:
        try:
            return jobs.show(job).tasks[0].refunded_wei
        except Unreachable as error:
            if time.monotonic() > ends_s:
                raise Failure(str(error), "", "clusterai status", Exit.NOT_RUNNING) from None
        time.sleep(POLL_S)


def _answer(jobs: Jobs, output: str, store: BlobStore) -> str:
    tree = carry.download(jobs, output, store, lambda _: None)
    return " ".join(store.read(Digest(it.digest)).decode().strip() for it in tree.entries)


class _Tale:
    """What a lease's story says, in people's words and the order of the chain."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._seen = 0
        self._auditors = 0
        self.lease = ""
        self.rounds = 0
        self.referees = 0
        self.reason: str | None = None
        self.slashed: dict[str, Any] = {}

    @property
    def over(self) -> bool:
        return bool(self.slashed) or self.reason not in (None, "FRAUD")

    def take(self, lease: LeaseAudit) -> None:
        self.lease, self.reason = lease.lease, lease.reason
        fresh, self._seen = lease.steps[self._seen :], len(lease.steps)
        for step in fresh:
            self._step(step, lease)

    def _step(self, step: Step, lease: LeaseAudit) -> None:
        tell, detail = self._teller.tell, step.detail
        match step.what:
            case "committed":
                text = f"it commits to {detail['segments']} states on chain, root {_short(detail['root'])}"
                tell("committed", text, **detail)
            case "drawn":
                tell("drawn", f"the chain's beacon draws segment {lease.segment}", **detail)
            case "auditor_revealed":
                self._auditors += 1
                which = "an auditor ran it again and" if self._auditors == 1 else "a second auditor"
                says = "comes to the same state" if detail["matches"] else "comes to another state"
                tell(f"audited {self._auditors}", f"{which} {says}: {_short(step.by)}", by=step.by, **detail)
            case "disputed":
                text = (
                    f"{_short(step.by)} accuses it; they part somewhere in {detail['steps']:,} units of fuel"
                )
                tell("disputed", text, by=step.by, **detail)
            case "selected":
                self.rounds += 1
                units = detail["high"] - detail["low"]
                text = f"round {self.rounds}: they part between {detail['low']:,} and {detail['high']:,} ({units:,} units)"
                tell(f"round {self.rounds}", text, **detail)
            case "referees_drawn":
                self.referees = len(set(detail["referees"]))
                tell(
                    f"judges {detail['level'] + 1}",
                    f"{self.referees} referees are drawn to run that one step",
                    **detail,
                )
            case "dispute_ended":
                tell(
                    "judged",
                    f"two thirds of them say the same: {_short(step.by)} was right",
                    by=step.by,
                    **detail,
                )
            case "closed":
                tell("closed", f"the lease is closed: {detail['reason']}", **detail)
            case "slashed":
                self.slashed = detail
                text = (
                    f"stake gone: {money(detail['amount'])}, {money(detail['bounty'])} to the finder, "
                    f"{money(detail['burned'])} burned"
                )
                tell("slashed", text, **detail)
            case _:
                pass


def _short(name: object) -> str:
    return f"{str(name)[:12]}…"


def _conclude(folder: DataFolder, story: Story) -> None:
    data = folder.root
    if not story.caught:
        say.say(
            f"\nnot caught within {story.seconds:.0f} s; look at:  {command(f'job verify {story.job}', data)}"
        )
        return
    say.tell(
        f"\n[bold green]caught in {story.seconds:.0f} s[/], {story.rounds} rounds down to one step. It lost "
        f"{money(story.slashed_wei)}; you got {money(story.refunded_wei)} back."
    )
    say.say(f"every move of it:           {command(f'job verify {story.job}', data)}")
    say.say(f"let the node start over:    {command('demo restore', data)}")
