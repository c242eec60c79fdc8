"""How fast machines are chosen, and how well: `python bench/placement.py [--parts speed,quality,day,http,coordinates] [--quick]`.

1. speed: a mix of requests over 1,000 and 100,000 machines, p50 and p95, on an index at rest and with churn between requests.
2. quality: 100 random requests over worlds of 1,000, against the optimum that CP-SAT proves, and beside the k cheapest and the
   closest k. OR-tools comes with `make install-peers`.
3. day: a day of bookings over 100,000 machines that come and go, half of them rented when it begins: what share is placed, how
   fast, and for a sample the cost against the proven optimum among all that was free then.
4. http: plans and lists of a gateway's own marketplace over loopback, from a client on the same machine; what the gateway's process
   took for each, how long its event loop stood still meanwhile, and what an offer costs that comes over a link.
5. coordinates: errors of predicted round trips, and what liars do to them.

The world is made up (`market/core/placement/population.py`). Times are of one thread, the clock's and the processor's: where a
machine is shared, the second is what placement took.
"""

# ruff: noqa: E402 - the installer of other people's programs lies in the repository's root
import argparse
import asyncio
import contextlib
import heapq
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import httpx
import msgspec
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

sys.path[:0] = [str(Path(__file__).parents[1])]

from clusterai.gateway.adapters.door import Admission, Doors
from clusterai.gateway.adapters.marketplace import Marketplace
from clusterai.gateway.adapters.offerpages import OfferPages
from clusterai.gateway.config import MarketConfig
from clusterai.ledger.core.events import Delegated, Registered
from clusterai.market.adapters.exact import Proof, Solver
from clusterai.market.core.directory import Directory
from clusterai.market.core.placement import coordinates, population
from clusterai.market.core.placement.book import Book, Booked, Confirm, Hold, Holding, seats_of
from clusterai.market.core.placement.coordinates import Places
from clusterai.market.core.placement.explain import tolls, why_not
from clusterai.market.core.placement.feed import OfferFeed
from clusterai.market.core.placement.index import Index
from clusterai.market.core.placement.offers import Measurement, Offer
from clusterai.market.core.placement.place import Candidates, NoPlan, Plan, candidates, place, problem_of
from clusterai.market.core.placement.population import GPUS, HARDWARE, REGIONS, World
from clusterai.market.core.placement.problem import Group, Problem
from clusterai.market.core.placement.request import Need, Request, single
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest, Role
from clusterai.protocol.offers import MachineOffer, signed_digest
from clusterai.protocol.signing import Key, recover
from clusterai.protocol.statements import network_domain
from clusterai.runtime.machine import Tick
from scripts import install

NOW = 1_000_000
DAY_S = 86_400
ROUNDS = 150
"""Samples that each machine takes of others before its coordinate is used."""
SAMPLED = 40
"""Bookings of the day that are compared with the optimum."""


def requests(random: np.random.Generator, sizes: tuple[int, ...]) -> Iterator[Request]:
    while True:
        nodes = int(random.choice(sizes))
        gpu = GPUS[int(random.choice(len(GPUS), p=(0.4, 0.2, 0.25, 0.15)))]
        need = Need(
            gpu=gpu,
            cpu_milli=int(random.choice((0, 4_000, 16_000))),
            hardware=HARDWARE[0] if random.random() < 0.3 else "",
            bandwidth_kbps=1_000_000 if random.random() < 0.2 else 0,
        )
        yield Request(
            parts=single(nodes, need),
            regions=(f"r{random.integers(REGIONS)}",) if random.random() < 0.25 else (),
            most_rtt_us=int(random.choice((5_000, 30_000, 100_000))) if random.random() < 0.3 else None,
            most_per_operator=(None, 1, 2)[int(random.integers(3))],
            us_wei=int(10 ** random.uniform(2, 5.3)),
        )


class Machines:
    """A world with coordinates, and its offers."""

    def __init__(self, count: int, seed: int) -> None:
        self.world: World = population.world(count, seed)
        self.places: Places = population.settle(self.world, ROUNDS, seed + 1)
        self.measured = Measurement(population.ALL, population.VALIDATOR, NOW)

    def offer(self, row: int, now_s: int, price: float = 1.0) -> Offer:
        price_wei = int(self.world.price_wei[row] * price)
        return population.offer(self.world, self.places, row, now_s, 2 * DAY_S, self.measured, price_wei)

    def index(self) -> Index:
        index = Index()
        for row in range(len(self.world.city)):
            index.put(self.offer(row, NOW), NOW)
        return index


class Times:
    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def of(self, work: Callable[[], Plan | NoPlan]) -> Plan | NoPlan:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.cpu.append(1e3 * (time.process_time() - cpu))
        self.wall.append(1e3 * (time.perf_counter() - wall))
        return result

    def __str__(self) -> str:
        return " | ".join(f"{np.percentile(it, p):.1f}" for it in (self.cpu, self.wall) for p in (50, 95))


# --- speed ---


def speed(count: int, asked: int) -> None:
    machines = Machines(count, 1)
    began = time.process_time()
    index = machines.index()
    per_offer = 1e6 * (time.process_time() - began) / count
    random = np.random.default_rng(3)
    mix = requests(random, (1, 2, 3, 4, 8, 16))
    for name, churn in (("at rest", 0), ("1 % of offers changed between requests", max(1, count // 100))):
        times, found = Times(), 0
        for _ in range(asked):
            for row in random.integers(0, count, churn).tolist():
                if random.random() < 0.5:
                    index.remove(population.node(row))
                else:
                    index.put(machines.offer(row, NOW, random.uniform(0.8, 1.2)), NOW)
            request = next(mix)
            found += isinstance(times.of(lambda it=request: place(index, it, None, NOW)), Plan)
        print(f"| {count:,} {name} | {times} | {found / asked:.0%} |")
    everyone, explained, told = Times(), Times(), Times()
    for nodes, most in itertools.product((4, 16), (None, 1)):
        request = Request(parts=single(nodes), most_per_operator=most, us_wei=20_000)
        price_wei = 0
        for _ in range(max(3, asked // 20)):
            plan = everyone.of(lambda it=request: place(index, it, None, NOW))
            assert isinstance(plan, Plan)
            price_wei = plan.price_wei
            told.of(lambda it=request, have=plan: (tolls(index, it, have, None, NOW), have)[1])
        tight = msgspec.structs.replace(request, most_price_wei=price_wei // 2)
        explained.of(lambda it=tight: (why_not(index, it, None, NOW), NoPlan(0))[1])
    print(f"| {count:,} every machine a candidate | {everyone} | |")
    print(f"| {count:,} what each wish costs | {told} | |")
    print(f"| {count:,} why not, with relaxations tried | {explained} | |")
    print(f"| {count:,} an offer put in: {per_offer:.0f} us | | | | | |")


# --- quality ---


class Rated:
    """A plan among all candidates, beside what CP-SAT and naive choices give."""

    def __init__(self, index: Index, request: Request, plan: Plan, everyone: Candidates) -> None:
        self.problem = problem_of(index, request, everyone, np.arange(len(everyone.rows)), None, NOW).problem
        at = {index.offer(int(row)).node: number for number, row in enumerate(everyone.rows)}
        self.group = self.problem.group([[at[it.node] for it in part] for part in plan.parts])

    def prove(self, solver: Solver) -> Proof:
        return solver.solve(self.problem, self.group)


def naive(problem: Problem, keys: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Group:
    """The first k by `keys` that the operators' limit allows."""
    cap = problem.most_per_operator or problem.nodes
    held: Counter[int] = Counter()
    rows: list[int] = []
    for row in np.argsort(keys, kind="stable").tolist():
        if held[int(problem.operator[row])] < cap and problem.able[0, row] and len(rows) < problem.nodes:
            rows.append(row)
            held[int(problem.operator[row])] += 1
    return problem.group([rows])


def closest(problem: Problem) -> Group:
    """The star of least radius around any candidate, whatever it costs."""
    radius = np.sort(problem.rtt, axis=1)[:, problem.nodes - 1]
    return naive(problem, problem.rtt[int(radius.argmin())])


def quality(instances: int, count: int, python: Path) -> None:
    random = np.random.default_rng(13)
    mix = requests(random, (2, 3, 4, 6, 8, 12))
    ratios: list[float] = []
    cheap: list[float] = []
    close: list[float] = []
    unproven = infeasible = 0
    solved = Times()
    left: list[int] = []
    with Solver(python, seconds=60.0) as solver:
        number = 0
        index = Index()
        while len(ratios) + unproven < instances:
            if number % 10 == 0:
                index = Machines(count, 500 + number).index()
            number += 1
            request = next(mix)
            everyone = candidates(index, request, NOW)
            if len(everyone.rows) < request.nodes:
                continue
            plan = place(index, request, None, NOW)
            if isinstance(plan, NoPlan):
                problem = problem_of(
                    index, request, everyone, np.arange(len(everyone.rows)), None, NOW
                ).problem
                proof = solver.solve(problem, None)
                if proof.group is None and proof.proven:
                    infeasible += 1
                    continue
                unproven += 1
                print(
                    f"not placed, and {'there is a group' if proof.group else 'not proven impossible'}: {request}"
                )
                continue
            rated = Rated(index, request, plan, everyone)
            cpu = time.process_time()
            proof = rated.prove(solver)
            solved.wall.append(1e3 * proof.wall_s)
            solved.cpu.append(1e3 * (time.process_time() - cpu + proof.wall_s))
            left.append(proof.candidates)
            if not proof.proven or proof.group is None:
                unproven += 1
                continue
            ratios.append(rated.group.cost / proof.group.cost)
            cheap.append(naive(rated.problem, rated.problem.burden).cost / proof.group.cost)
            close.append(closest(rated.problem).cost / proof.group.cost)
    print("\n| chosen by | cost / proven optimum: mean | median | worst | optimal |\n|---|---|---|---|---|")
    for name, all_of in (("placement", ratios), ("the k cheapest", cheap), ("the closest k", close)):
        exact = sum(it <= 1.0 for it in all_of)
        print(
            f"| {name} | {np.mean(all_of):.5f} | {np.median(all_of):.3f} | {max(all_of):.4f} | {exact}/{len(all_of)} |"
        )
    print(
        f"\n{len(ratios)} of {count:,} machines each, proven; {unproven} not proven; {infeasible} more can't be placed, "
        f"which is proven; candidates left to the solver: median {np.median(left):.0f}, most {max(left)}; its time in ms: "
        f"p50 {np.percentile(solved.wall, 50):.0f}, p95 {np.percentile(solved.wall, 95):.0f}"
    )


# --- a day ---


class Day:
    """Bookings as they come, machines that leave and return, and the book that keeps both apart."""

    def __init__(self, count: int, asked: int, python: Path | None) -> None:
        self.machines = Machines(count, 21)
        self.index = self.machines.index()
        self.book = Book(self.index)
        self.random = np.random.default_rng(22)
        self.count, self.asked = count, asked
        self.times = Times()
        self.outcomes: Counter[str] = Counter()
        self.ratios: list[float] = []
        self.sampled = self.large = 0
        self.broken: set[Digest] = set()
        self.solver = Solver(python, seconds=10.0) if python is not None else None
        self._names = itertools.count()

    def run(self) -> None:
        if self.solver is None:
            self._through()
        else:
            with self.solver:
                self._through()

    def _through(self) -> None:
        self._rent_half()
        # A machine leaves every 12 hours on average and is back after 20 minutes, at another price.
        changes: list[tuple[float, int, bool]] = [
            (float(self.random.exponential(DAY_S / 2)), row, False) for row in range(self.count)
        ]
        heapq.heapify(changes)
        mix = requests(self.random, (1, 1, 2, 4, 4, 8, 16, 32))
        self.churned = 0
        for number, at in enumerate(np.sort(self.random.uniform(0, DAY_S, self.asked)).tolist()):
            while changes[0][0] <= at:
                when, row, back = heapq.heappop(changes)
                self._change(when, row, back)
                stays = self.random.exponential(DAY_S / 2 if back else 1_200)
                heapq.heappush(changes, (when + float(stays), row, not back))
            self._ask(next(mix), NOW + at, sample=number % max(1, self.asked // SAMPLED) == 0)

    def _rent_half(self) -> None:
        rows = self.random.permutation(self.count)[: self.count // 2].tolist()
        for first in range(0, len(rows), 50):
            seats = tuple(
                seat
                for row in rows[first : first + 50]
                for seat in seats_of(_plan_of(self.machines.offer(row, NOW)))
            )
            hold = self._name()
            self.book.step(Hold(hold, population.node(first), seats), NOW)
            self.book.step(Confirm(hold, NOW + int(self.random.uniform(60, DAY_S))), NOW)

    def _name(self) -> Digest:
        return Digest(next(self._names).to_bytes(32))

    def _change(self, when: float, row: int, back: bool) -> None:
        self.churned += 1
        now = int(NOW + when)
        if back:
            self.index.put(self.machines.offer(row, now, float(self.random.uniform(0.8, 1.25))), now)
        else:
            node = population.node(row)
            holder = self.book.holder(node)
            if holder is not None:
                self.broken.add(holder)
            self.index.remove(node)

    def _ask(self, request: Request, now: float, sample: bool) -> None:
        self.book.step(Tick(), now)
        plan = self.times.of(lambda: place(self.index, request, None, now))
        if isinstance(plan, NoPlan):
            self.outcomes[
                "fewer than asked suit" if plan.candidates < request.nodes else "no group found"
            ] += 1
            return
        if sample and self.solver is not None:
            self._compare(request, plan, now)
        hold = self._name()
        held = self.book.step(Hold(hold, Address(hold[-20:]), seats_of(plan)), now)[-1]
        assert isinstance(held, Holding), held
        hours = float(self.random.lognormal(1.6, 0.8))
        booked = self.book.step(Confirm(hold, int(now + 3_600 * hours) + 1), now)[-1]
        assert isinstance(booked, Booked)
        assert sum(seat.price_wei for seat in booked.seats) == plan.price_wei
        self.outcomes["placed"] += 1
        self.outcomes["machines"] += len(booked.seats)

    def _compare(self, request: Request, plan: Plan, now: float) -> None:
        assert self.solver is not None
        everyone = candidates(self.index, request, now)
        few = _affordable(self.index, request, everyone, plan)
        self.sampled += 1
        if few is None:
            self.large += 1
            return
        rated = Rated(self.index, request, plan, few)
        proof = rated.prove(self.solver)
        if proof.proven and proof.group is not None:
            self.ratios.append(rated.group.cost / proof.group.cost)

    def show(self) -> None:
        placed = self.outcomes["placed"]
        print("\n| a day | |\n|---|---|")
        print(f"| machines | {self.count:,}, half of them rented when it begins |")
        print(f"| leaving or returning | {self.churned:,} times |")
        print(
            f"| requests | {self.asked:,}, for {self.outcomes['machines'] / max(1, placed):.1f} machines each |"
        )
        print(f"| placed | {placed / self.asked:.1%} |")
        for reason in ("fewer than asked suit", "no group found"):
            print(f"| not placed: {reason} | {self.outcomes[reason] / self.asked:.1%} |")
        print(
            "| a plan shown that wasn't placed, a machine booked twice, a price other than shown | 0 (asserted) |"
        )
        print(f"| p50, p95 of the processor, of the clock, ms | {self.times} |")
        print(
            f"| cost / proven optimum | mean {np.mean(self.ratios or [np.nan]):.5f}, worst {max(self.ratios or [np.nan]):.5f}, "
            f"of {len(self.ratios)} proven among {self.sampled} sampled ({self.large} too large to prove) |"
        )
        print(
            f"| groups that lost a machine to churn, those of the beginning (50 machines each) included | {len(self.broken):,} |"
        )


def _plan_of(offer: Offer) -> Plan:
    return Plan(((offer,),), offer.price_wei, 0, 0, 0, offer.price_wei, 1)


def _affordable(
    index: Index, request: Request, everyone: Candidates, plan: Plan, most: int = 6_000
) -> Candidates | None:
    """Whom a group of the plan's cost could have; None if these are too many for a matrix."""
    nodes = request.nodes
    least = np.partition(everyone.burden, nodes - 1)[:nodes]
    kept = everyone.burden <= plan.cost_wei - int(least.sum() - least.max())
    if int(kept.sum()) > most:
        return None
    return Candidates(everyone.rows[kept], everyone.able[:, kept], everyone.burden[kept])


# --- over HTTP ---


class Anyone:
    """A door that lets everybody in, each with an account of its own."""

    async def admit(
        self, method: str, path: str, headers: dict[bytes, bytes], body: bytes, scope: str
    ) -> Admission:
        name = headers.get(b"authorization", b"")
        return Admission(Digest(name.rjust(32, b"0")[-32:]), "bench", ("inference",))


def serve(count: int, port: int) -> None:
    """A gateway's marketplace and its pages with `count` machines, as a process of its own. It ends with its standard input."""
    now = int(time.time())
    machines = Machines(count, 1)
    machines.measured = Measurement(population.ALL, population.VALIDATOR, now)
    folder = Path(tempfile.mkdtemp())
    market = Marketplace(
        folder / "market.db",
        Directory(),
        network_domain(31415, Address(bytes(20))),
        MarketConfig(),
        "NORMAL",
        lambda peer, frame: None,
        lambda peer: None,
    )
    for row in range(count):
        market.index.put(machines.offer(row, now), now)
    pages = OfferPages(market, cast("Doors", Anyone()), Address(bytes(20)), lambda account: 2**62)
    stood: list[float] = []

    async def usage(request: HttpRequest) -> Response:
        found = {"cpu_ms": 1e3 * time.process_time(), "stood_ms": max(stood, default=0.0)}
        stood.clear()
        return Response(msgspec.json.encode(found))

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            stood.append(1e3 * (time.perf_counter() - before) - 1)

    async def run() -> None:
        app = Starlette(routes=[*pages.routes(), Route("/usage", usage)])
        server = uvicorn.Server(
            uvicorn.Config(app, port=port, lifespan="off", log_level="error", access_log=False)
        )
        tasks = [asyncio.create_task(it) for it in (watch(), market.driver.tick_forever(), server.serve())]
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    shutil.rmtree(folder)


def over_http(count: int, asked: int, port: int) -> None:
    command = [sys.executable, __file__, "--serve", str(count), "--port", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as server:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
                _until_up(client, server)
                _ask_over_http(client, count, asked)
        finally:
            server.communicate()


def _until_up(client: httpx.Client, server: "subprocess.Popen[bytes]") -> None:
    while server.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            client.get("/usage")
            return
        time.sleep(0.5)
    raise SystemExit("the marketplace didn't start")


def _ask_over_http(client: httpx.Client, count: int, asked: int) -> None:
    random = np.random.default_rng(3)
    mix = requests(random, (1, 2, 3, 4, 8, 16))

    def plan(number: int, hold: bool) -> httpx.Response:
        request = next(mix)
        need = request.parts[0].need
        body = {
            "nodes": request.nodes,
            "duration_s": 3_600,
            "need": {
                "gpu": need.gpu,
                "cpu_milli": need.cpu_milli,
                "hardware": need.hardware,
                "bandwidth_kbps": need.bandwidth_kbps,
            },
            "regions": request.regions,
            "max_rtt_us": request.most_rtt_us,
            "max_per_operator": request.most_per_operator,
            "us_wei": request.us_wei,
            "hold": hold,
        }
        return client.post("/v1/clusterai/rentals/plan", json=body, headers={"authorization": f"{number}"})

    def listed(query: str) -> Callable[[int], httpx.Response]:
        return lambda number: client.get("/v1/clusterai/offers" + query)

    asks: list[tuple[str, Callable[[int], httpx.Response]]] = [
        ("a plan with what each wish costs, held", lambda number: plan(number, hold=True)),
        ("the same, just shown", lambda number: plan(number, hold=False)),
        ("50 of all offers", listed("")),
        ("50 with filters", listed("?gpu=h100&cpu_milli=16000&region=r1,r2")),
    ]
    for name, ask in asks:
        wall: list[float] = []
        cpu: list[float] = []
        stood: list[float] = []
        statuses: Counter[int] = Counter()
        for number in range(asked):
            before = client.get("/usage").json()
            began = time.perf_counter()
            statuses[ask(number).status_code] += 1
            wall.append(1e3 * (time.perf_counter() - began))
            after = client.get("/usage").json()
            cpu.append(after["cpu_ms"] - before["cpu_ms"])
            stood.append(after["stood_ms"])
        values = " | ".join(f"{np.percentile(it, p):.1f}" for it in (cpu, wall) for p in (50, 95))
        told = ", ".join(f"{status}: {times}" for status, times in sorted(statuses.items()))
        print(f"| {count:,} {name} | {values} | {np.percentile(stood, 95):.1f} | {told} |")


def offer_over_a_link(count: int) -> None:
    """What the gateway does for each: decode, recover the key, judge, put."""
    owner, network = Key((1).to_bytes(32)), network_domain(31415, Address(bytes(20)))
    keys = [Key(number.to_bytes(32)) for number in range(2, count + 2)]
    directory = Directory()
    directory.apply(Registered(owner.address, int(Role.PROVIDER), ZERO_DIGEST))
    for key in keys:
        directory.apply(Delegated(owner.address, key.address))
    feed = OfferFeed(Index(), directory, network, recover, 0)
    said: list[tuple[bytes, bytes]] = []
    for key in keys:
        offer = MachineOffer(
            key.address,
            owner.address,
            1,
            "x86-64-v3",
            4_000,
            2**33,
            "",
            0,
            "eu",
            100_000,
            10**9,
            NOW,
            NOW + 600,
        )
        said.append((canonical.encode(offer), key.sign(signed_digest(offer, network))))
    began = time.process_time()
    for data, signature in said:
        assert feed.hear_offer(data, signature, NOW) is None
    each = 1e6 * (time.process_time() - began) / count
    print(f"| an offer over a link: {each:.0f} us of the processor | | | | | | |")


# --- coordinates ---


def liars(count: int) -> None:
    print(
        "\n| samples each | liars | median relative error | p90 | error within a city, ms |\n|---|---|---|---|---|"
    )
    world = population.world(count, 31)
    for rounds, share in ((60, 0.0), (150, 0.0), (300, 0.0), (300, 0.02), (300, 0.05), (300, 0.2)):
        bad = int(share * count)
        random = np.random.default_rng(32)
        places = coordinates.begin(count, random)
        everyone = np.arange(count)
        meet = population.Meetings(world)
        for _ in range(rounds):
            other = meet(random)
            there = places.at(other)
            rtt = population.round_trips(world, everyone, other, random)
            lies = other >= count - bad
            there.x[lies] = random.normal(0.0, 1e6, (int(lies.sum()), coordinates.DIMENSIONS))
            there.error[lies] = 0.0
            rtt[lies] += 500_000.0
            places = coordinates.update(places, there, rtt)
        honest = count - bad
        here, there_ = random.integers(0, honest, 20_000), random.integers(0, honest, 20_000)
        apart = here != there_
        here, there_ = here[apart], there_[apart]
        true = population.round_trips(world, here, there_, random)
        off = np.abs(coordinates.predict(places.at(here), places.at(there_)) - true)
        city = world.city[here] == world.city[there_]
        print(
            f"| {rounds} | {share:.0%} | {np.median(off / true):.3f} | {np.percentile(off / true, 90):.3f} | "
            f"{np.median(off[city]) / 1e3:.1f} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="speed,quality,day,http,coordinates")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--requests", type=int, default=3_000, help="of the day")
    parser.add_argument("--port", type=int, default=21_600, help="of the part over HTTP")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve, arguments.port)
        return 0
    parts = arguments.parts.split(",")
    less = 10 if arguments.quick else 1
    python = install.peer(install.PEERS / "ortools.txt", install.HOME / "peers" / "ortools")
    if "speed" in parts:
        print(
            "| machines | processor ms p50 | p95 | clock ms p50 | p95 | placed |\n|---|---|---|---|---|---|"
        )
        for count in (1_000, 100_000 // less):
            speed(count, 200 // less)
    if "quality" in parts:
        if python is None:
            print("\nquality: OR-tools isn't installed: make install-peers")
            return 1
        quality(100 // less, 1_000, python)
    if "day" in parts:
        day = Day(100_000 // less, arguments.requests // less, python)
        day.run()
        day.show()
    if "http" in parts:
        print(
            "\n| over HTTP | processor ms p50 | p95 | clock ms p50 | p95 | event loop stood still ms p95 | answers |\n"
            "|---|---|---|---|---|---|---|"
        )
        for count in (1_000, 100_000 // less):
            over_http(count, 200 // less, arguments.port)
        offer_over_a_link(2_000 // less)
    if "coordinates" in parts:
        liars(2_000)
    return 0


if __name__ == "__main__":
    sys.exit(main())
