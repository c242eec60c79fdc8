"""Who could run a job, for how much, when it would be done, how it would be verified, and what stands in the way.

Pure: offers go in, a plan comes out. A gateway answers `POST /v1/jobs/plan` with it and places leases by the same
`assign`, so that what was shown is what happens.
"""

from collections.abc import Iterable, Sequence

import msgspec

from clusterai.audit.core.segments import MILLION, RateRules, rate_ppm
from clusterai.ledger.core.rules import AuditRules
from clusterai.protocol.ids import ZERO_DIGEST
from clusterai.protocol.money import show as money
from clusterai.protocol.units import show_duration, show_size
from clusterai.sdk.jobshapes import Candidate, Plan, Refusal, RefusalCode, Refusing, Relaxation, Verification
from clusterai.work.batch.core.pinned import share_s
from clusterai.work.batch.core.prices import Tariff, audit_fee_wei, hourly_wei, total_wei
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.spec import GIB, MOST_SEGMENTS, Check, JobArray, JobSpec

_DEPLOYED = AuditRules()
RULES = RateRules(
    saving_ppm=_DEPLOYED.saving_ppm,
    sensitivity_ppm=_DEPLOYED.sensitivity_ppm,
    corrupt_ppm=_DEPLOYED.corrupt_ppm,
    margin_ppm=_DEPLOYED.margin_ppm,
)
"""As a chain is deployed with; where its governor changed them, its own are handed in."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider lends to one job at most, and how it stands.

    Attributes:
        provider: its owner's address, 0x hex.
        checks: classes that it runs.
        bases: the names and digests of the root file systems that it offers.
        forms: what else it runs besides bases: `wasm`, `tar`, `oci`.
        cpu_milli, memory_bytes, disk_bytes, gpus: what is there in all; `slots` of a job is how often it fits.
        fuel_per_s: how fast its WASM engine was measured to be.
        queue, queue_s: jobs before this one, and how long they may take.
        stake_wei, valid_in_a_row, barred: as the chain says.
        linked: it is connected to this gateway now.
        takes_more: its queue isn't full.
    """

    provider: str
    tariff: Tariff = Tariff()
    checks: tuple[Check, ...] = ("wasm", "pinned", "unverified")
    bases: tuple[tuple[str, bytes], ...] = ()
    forms: tuple[str, ...] = ("wasm",)
    network: bool = False
    cpu_milli: int = 1000
    memory_bytes: int = GIB
    disk_bytes: int = GIB
    processes: int = 256
    gpus: int = 0
    gpu: str = ""
    most_time_s: int = 86_400
    most_segments: int = MOST_SEGMENTS
    fuel_per_s: int = 100_000_000
    queue: int = 0
    queue_s: int = 0
    stake_wei: int = 0
    valid_in_a_row: int = 0
    barred: bool = False
    linked: bool = True
    takes_more: bool = True


def plan(
    array: JobArray,
    wishes: Wishes,
    offers: Iterable[Offer],
    rules: RateRules = RULES,
    least_stake_wei: int = 0,
) -> Plan:
    """
    Args:
        least_stake_wei: a verified job goes to nobody with less.
    """
    spec = array.task(0)
    able: list[tuple[Offer, Candidate]] = []
    refusing: list[tuple[Offer, list[Refusal]]] = []
    for offer in offers:
        reasons = refusals(offer, spec, wishes, least_stake_wei)
        if reasons:
            refusing.append((offer, reasons))
        else:
            able.append((offer, candidate(offer, spec, rules)))
    able.sort(key=lambda pair: (pair[1].total_wei, -pair[1].stake_wei, pair[1].provider))
    refusing.sort(key=lambda pair: (len(pair[1]), pair[0].provider))
    leases = len(array) * wishes.replicas
    chosen = assign([(offer, one.total_wei) for offer, one in able], spec, len(array), wishes.replicas)
    placed = len(chosen) == leases
    counts = {one.provider: 0 for _, one in able}
    for provider in chosen:
        counts[provider] += 1
    taken = [one for _, one in able if counts[one.provider]] if placed else []
    finish = [_finish(offer, spec, counts[offer.provider]) for offer, _ in able if counts[offer.provider]]
    worst = max(taken, key=lambda one: one.cheat_gain_wei, default=None)
    slowest = min((offer.fuel_per_s for offer, _ in able if counts[offer.provider]), default=None)
    return Plan(
        job="0x" + array.digest().hex(),
        name=array.job.name,
        tasks=len(array),
        replicas=wishes.replicas,
        leases=leases,
        placed=placed,
        hourly_wei=sum(
            one.hourly_wei * min(counts[one.provider], slots(offer, spec))
            for offer, one in able
            if one in taken
        ),
        total_wei=sum(one.total_wei * counts[one.provider] for one in taken),
        audit_fee_wei=sum(one.audit_fee_wei * counts[one.provider] for one in taken),
        eta_s=max(finish, default=0) if placed else 0,
        verification=verification(spec, worst, wishes.replicas, rules, slowest),
        candidates=[one for _, one in able],
        refused=[Refusing(provider=offer.provider, reasons=reasons) for offer, reasons in refusing],
        reasons=[] if placed else _why_not(able, refusing, wishes),
        relaxation=None if placed else cheapest_relaxation(refusing, spec, wishes, least_stake_wei),
        numbers={
            "total_wei": "claimed",
            "eta_s": "claimed",
            "stake_wei": "settled",
            "valid_in_a_row": "settled",
            "audit_rate_ppm": "settled",
        },
    )


def candidate(offer: Offer, spec: JobSpec, rules: RateRules = RULES) -> Candidate:
    total = total_wei(offer.tariff, spec)
    rate = 0 if spec.check == "unverified" else rate_ppm(rules, offer.stake_wei, total, offer.valid_in_a_row)
    return Candidate(
        provider=offer.provider,
        hourly_wei=hourly_wei(offer.tariff, spec),
        total_wei=total,
        audit_fee_wei=audit_fee_wei(spec, total),
        eta_s=offer.queue_s + run_s(offer, spec),
        queue=offer.queue,
        stake_wei=offer.stake_wei,
        valid_in_a_row=offer.valid_in_a_row,
        audit_rate_ppm=rate,
        cheat_gain_wei=cheat_gain_wei(rules, rate, total, offer.stake_wei),
    )


def run_s(offer: Offer, spec: JobSpec) -> int:
    """How long it takes at most."""
    if spec.check == "wasm":
        return min(spec.resources.time_s, -(-spec.fuel // max(1, offer.fuel_per_s)))
    return spec.resources.time_s


def slots(offer: Offer, spec: JobSpec) -> int:
    """How many of this job fit in at once."""
    wants = spec.resources
    fits = [
        offer.cpu_milli // wants.cpu_milli,
        offer.memory_bytes // wants.memory_bytes,
        offer.disk_bytes // wants.disk_bytes,
    ]
    if wants.gpus:
        fits.append(offer.gpus // wants.gpus)
    return min(fits)


def assign(able: Sequence[tuple[Offer, int]], spec: JobSpec, tasks: int, replicas: int) -> list[str]:
    """Who gets each lease, task by task and replica by replica; shorter than tasks x replicas where it can't be done.

    The cheapest with a slot free in the current round gets it; when all are taken a next round begins behind them. No
    two replicas of a task go to the same provider: agreeing with oneself proves nothing.

    Args:
        able: offers with their price for one lease, cheapest first.
    """
    if len(able) < replicas:
        return []
    room = [slots(offer, spec) for offer, _ in able]
    free = list(room)
    found: list[str] = []
    for _ in range(tasks):
        takers: list[int] = []
        while len(takers) < replicas:
            at = next((i for i in range(len(able)) if free[i] > 0 and i not in takers), None)
            if at is None:
                for i, more in enumerate(room):
                    free[i] += more
                continue
            free[at] -= 1
            takers.append(at)
        found += [able[i][0].provider for i in takers]
    return found


# --- what stands in the way ---


def refusals(offer: Offer, spec: JobSpec, wishes: Wishes, least_stake_wei: int = 0) -> list[Refusal]:
    """Every reason why this provider wouldn't get this job; empty where it could."""
    wants = spec.resources
    found: list[Refusal] = []

    def refuse(code: RefusalCode, why: str) -> None:
        found.append(Refusal(code=code, why=why))

    if offer.barred:
        refuse("barred", "it was convicted of fraud")
    if not offer.linked:
        refuse("away", "it isn't connected to this gateway now")
    elif not offer.takes_more:
        refuse("full", f"{offer.queue} jobs wait there already")
    if spec.check not in offer.checks:
        refuse("class", f"it runs {', '.join(offer.checks) or 'no class of jobs'}, and this is {spec.check}")
    elif spec.check != "unverified" and offer.stake_wei < least_stake_wei:
        refuse(
            "stake",
            f"it has {money(offer.stake_wei)} at stake, and a verified job asks for {money(least_stake_wei)}",
        )
    if why := _lacks_image(offer, spec):
        refuse("image", why)
    if spec.network and not offer.network:
        refuse("network", "it lends no network to jobs")
    if wants.cpu_milli > offer.cpu_milli:
        refuse(
            "cpu",
            f"it has {offer.cpu_milli / 1000:g} core{'s' if offer.cpu_milli != 1000 else ''}, and the job asks for {wants.cpu_milli / 1000:g}",
        )
    if wants.memory_bytes > offer.memory_bytes:
        refuse(
            "memory",
            f"it has {show_size(offer.memory_bytes)}, and the job asks for {show_size(wants.memory_bytes)}",
        )
    if wants.disk_bytes > offer.disk_bytes:
        refuse(
            "disk",
            f"it has {show_size(offer.disk_bytes)}, and the job asks for {show_size(wants.disk_bytes)}",
        )
    if wants.processes > offer.processes:
        refuse("processes", f"it allows {offer.processes} at once, and the job asks for {wants.processes}")
    if wants.gpus > offer.gpus:
        refuse("gpu", f"it has {offer.gpus or 'no'} GPUs, and the job asks for {wants.gpus}")
    elif wants.gpu and wants.gpu.lower() != offer.gpu.lower():
        refuse("gpu", f"it has {offer.gpu}, and the job asks for {wants.gpu}")
    if wants.time_s > offer.most_time_s:
        refuse(
            "time",
            f"it lends at most {show_duration(offer.most_time_s)}, and the job asks for {show_duration(wants.time_s)}",
        )
    if spec.segments > offer.most_segments:
        refuse("segments", f"it keeps at most {offer.most_segments} states, and the job has {spec.segments}")
    if wishes.deadline_s is not None:
        done = offer.queue_s + run_s(offer, spec)
        if done > wishes.deadline_s:
            refuse(
                "deadline",
                f"it may take {show_duration(done)}, and the deadline is in {show_duration(wishes.deadline_s)}",
            )
    total = total_wei(offer.tariff, spec)
    whole = total + audit_fee_wei(spec, total)
    if wishes.max_price_wei is not None and whole > wishes.max_price_wei:
        refuse(
            "price",
            f"it asks {money(whole)} with the audit's fee, and max_price is {money(wishes.max_price_wei)}",
        )
    hourly = hourly_wei(offer.tariff, spec)
    if wishes.max_hourly_wei is not None and hourly > wishes.max_hourly_wei:
        refuse("hourly", f"it asks {money(hourly)} an hour, and max_hourly is {money(wishes.max_hourly_wei)}")
    return found


def _lacks_image(offer: Offer, spec: JobSpec) -> str:
    image = spec.image
    if image.form != "base":
        return "" if image.form in offer.forms else f"it runs no images of the form {image.form!r}"
    offered = dict(offer.bases)
    if image.name not in offered:
        return f"it has no base {image.name!r}; it has {', '.join(sorted(offered)) or 'none'}"
    if image.digest not in (ZERO_DIGEST, offered[image.name]):
        return f"its base {image.name!r} is another one (0x{offered[image.name].hex()[:12]}…)"
    return ""


def _why_not(
    able: Sequence[tuple[Offer, Candidate]], refusing: Sequence[tuple[Offer, list[Refusal]]], wishes: Wishes
) -> list[Refusal]:
    if not able and not refusing:
        return [Refusal(code="nobody", why="no provider offers to run jobs here")]
    if able:
        return [
            Refusal(
                code="replicas",
                why=f"{len(able)} providers could run it, and {wishes.replicas} replicas need as many",
            )
        ]
    counts: dict[RefusalCode, int] = {}
    for _, reasons in refusing:
        for reason in reasons:
            counts[reason.code] = counts.get(reason.code, 0) + 1
    ranked = sorted(counts, key=lambda code: (-counts[code], code))
    return [Refusal(code=code, why=f"{counts[code]} of {len(refusing)} providers") for code in ranked]


def cheapest_relaxation(
    refusing: Sequence[tuple[Offer, list[Refusal]]], spec: JobSpec, wishes: Wishes, least_stake_wei: int = 0
) -> Relaxation | None:
    """The fewest, then cheapest, changes with which some provider would take it; None where no change helps."""
    found: list[Relaxation] = []
    for offer, reasons in refusing:
        if (relaxed := _relaxed(offer, [it.code for it in reasons], spec, wishes)) is None:
            continue
        easier, changes, wish = relaxed
        if refusals(offer, easier, wish, least_stake_wei):
            continue
        total = total_wei(offer.tariff, easier)
        whole = total + audit_fee_wei(easier, total)
        found.append(Relaxation(provider=offer.provider, changes=changes, total_wei=whole))
    return min(found, key=lambda it: (len(it.changes), it.total_wei, it.provider), default=None)


def _relaxed(
    offer: Offer, codes: Sequence[RefusalCode], spec: JobSpec, wishes: Wishes
) -> tuple[JobSpec, list[str], Wishes] | None:
    """The job as this offer could take it, and what was changed for it; None where a reason has no cure."""
    wants = spec.resources
    changes: list[str] = []
    for code in codes:
        match code:
            case "cpu":
                changes.append(f"resources.cpu: {wants.cpu_milli / 1000:g} → {offer.cpu_milli / 1000:g}")
                wants = msgspec.structs.replace(wants, cpu_milli=offer.cpu_milli)
            case "memory":
                changes.append(
                    f"resources.memory: {show_size(wants.memory_bytes)} → {show_size(offer.memory_bytes)}"
                )
                wants = msgspec.structs.replace(wants, memory_bytes=offer.memory_bytes)
            case "disk":
                changes.append(
                    f"resources.disk: {show_size(wants.disk_bytes)} → {show_size(offer.disk_bytes)}"
                )
                wants = msgspec.structs.replace(wants, disk_bytes=offer.disk_bytes)
            case "processes":
                changes.append(f"resources.processes: {wants.processes} → {offer.processes}")
                wants = msgspec.structs.replace(wants, processes=offer.processes)
            case "time":
                changes.append(
                    f"resources.time: {show_duration(wants.time_s)} → {show_duration(offer.most_time_s)}"
                )
                wants = msgspec.structs.replace(wants, time_s=offer.most_time_s)
            case "segments":
                changes.append(f"segments: {spec.segments} → {offer.most_segments}")
                spec = msgspec.structs.replace(spec, segments=offer.most_segments)
            case "price" | "hourly" | "deadline":
                pass  # Below, when the job is what it will be.
            case _:
                return None
    spec = msgspec.structs.replace(spec, resources=wants)
    total = total_wei(offer.tariff, spec)
    whole = total + audit_fee_wei(spec, total)
    if wishes.max_price_wei is not None and whole > wishes.max_price_wei:
        changes.append(f"max_price: {money(wishes.max_price_wei)} → {money(whole)}")
        wishes = msgspec.structs.replace(wishes, max_price_wei=whole)
    hourly = hourly_wei(offer.tariff, spec)
    if wishes.max_hourly_wei is not None and hourly > wishes.max_hourly_wei:
        changes.append(f"max_hourly: {money(wishes.max_hourly_wei)} → {money(hourly)}")
        wishes = msgspec.structs.replace(wishes, max_hourly_wei=hourly)
    done = offer.queue_s + run_s(offer, spec)
    if wishes.deadline_s is not None and done > wishes.deadline_s:
        changes.append(f"deadline: {show_duration(wishes.deadline_s)} → {show_duration(done)}")
        wishes = msgspec.structs.replace(wishes, deadline_s=done)
    return spec, changes, wishes


# --- how it is verified ---


def cheat_gain_wei(rules: RateRules, audit_rate_ppm: int, pay_wei: int, stake_wei: int) -> int:
    """What not doing the work yields on average over doing it: s R - p d (R + S)."""
    saved = rules.saving_ppm * pay_wei // MILLION
    return saved - _at_risk(rules, audit_rate_ppm, pay_wei, stake_wei)


def sabotage_wei(rules: RateRules, audit_rate_ppm: int, pay_wei: int, stake_wei: int, segments: int) -> int:
    """What a result that is wrong in one segment may be worth elsewhere before it pays: B where
    s R / T + B = (p / T) d (R + S + B)."""
    caught = audit_rate_ppm * rules.sensitivity_ppm * (MILLION - rules.corrupt_ppm)
    whole = segments * MILLION**3
    saved = rules.saving_ppm * pay_wei // (MILLION * segments)
    return max(0, (caught * (pay_wei + stake_wei) // whole - saved) * whole // (whole - caught))


def _at_risk(rules: RateRules, audit_rate_ppm: int, pay_wei: int, stake_wei: int) -> int:
    return (
        audit_rate_ppm
        * rules.sensitivity_ppm
        * (MILLION - rules.corrupt_ppm)
        * (pay_wei + stake_wei)
        // MILLION**3
    )


def verification(
    spec: JobSpec,
    worst: Candidate | None,
    replicas: int,
    rules: RateRules = RULES,
    slowest_fuel_s: int | None = None,
) -> Verification:
    """
    Args:
        worst: of the chosen ones, the one with the most reason to cheat; None where nobody is chosen.
        slowest_fuel_s: fuel that the slowest of the chosen burns in a second.
    """
    rate = worst.audit_rate_ppm if worst else 0
    agree = f"; {replicas} providers do the same, and their outputs must be equal" if replicas > 1 else ""
    if spec.check == "unverified":
        promise = "unverified: the provider's word" + agree
        limits = [
            "nobody can tell whether the work was done; make the job a WASM module, or `class: pinned`, if it is deterministic"
        ]
    else:
        share = f"{rate / 10_000:.3g} %"
        promise = (
            f"{spec.check}: {_segments(spec)} committed to; with probability {share} one is run again"
            if worst
            else f"{spec.check}: {_segments(spec)} committed to, and one may be run again"
        ) + agree
        limits = _limits(spec, worst, rules)
        burns = None if slowest_fuel_s is None else slowest_fuel_s * spec.resources.time_s
        if spec.check == "wasm" and burns is not None and spec.fuel > burns:
            # A segment ends for everybody where its share of the fuel is burnt.
            limits.append(_idle_fuel(spec, burns))
    return Verification(
        check=spec.check,
        segments=spec.segments,
        audit_rate_ppm=rate,
        reexecuted_ppm=-(-rate // spec.segments),
        replicas=replicas,
        promise=promise,
        limits=limits,
    )


def _segments(spec: JobSpec) -> str:
    return "one segment is" if spec.segments == 1 else f"{spec.segments} segments are"


def _limits(spec: JobSpec, worst: Candidate | None, rules: RateRules) -> list[str]:
    found: list[str] = []
    if worst is not None:
        if worst.cheat_gain_wei < 0:
            found.append(
                f"skipping the work costs the provider {money(-worst.cheat_gain_wei)} more than it saves, on average"
            )
        else:
            found.append("this provider has too little at stake for audits to deter it; ask for replicas")
        at_risk = _at_risk(rules, worst.audit_rate_ppm, worst.total_wei, worst.stake_wei)
        if spec.check == "wasm" and at_risk < worst.total_wei:
            found.append(
                "claiming more fuel than was used is not deterred at this stake: set `fuel` near what `clusterai run --local` shows"
            )
        most = sabotage_wei(rules, worst.audit_rate_ppm, worst.total_wei, worst.stake_wei, spec.segments)
        found.append(
            f"falsifying one segment is deterred while that is worth less than {money(most)} to somebody; above, ask for replicas"
        )
    if spec.check == "pinned":
        found.append(
            "the program must be deterministic: `clusterai run --local` runs a segment again and tells"
        )
        if spec.segments > 1:
            longest = show_duration(share_s(spec))
            found.append(f"no segment may take longer than {longest}, its share of the time: cut it evenly")
    return found


def _idle_fuel(spec: JobSpec, burns: int) -> str:
    return (
        f"it may use {spec.fuel:.2g} fuel and burns {burns:.2g} in its time here, so a state that never ends keeps auditors busy beyond their clocks: "
        "set `fuel` near what `clusterai run --local` shows, or ask for more time"
    )


def _finish(offer: Offer, spec: JobSpec, leases: int) -> int:
    return offer.queue_s + -(-leases // max(1, slots(offer, spec))) * run_s(offer, spec)
