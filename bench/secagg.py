"""Secure sums, beside Flower's SecAgg+: `python bench/secagg.py [--parts round,traffic,exact,poison,ckks] [--quick] [--openfhe PYTHON] [--svg FOLDER]`.

1. round: one round of the same clients, lengths, neighbours, threshold and drop-outs, by the shipped machines and by Flower's own
   SecAgg+ (`scripts/install.py peers flower`), each in one process, one client after the other, every message
   encoded and decoded; seconds of the processor. Ours has what Flower's lacks: signatures, endorsed survivor lists, commitments, a transcript.
2. traffic: bytes that a member sends and receives, against its values in the clear (16 bits each); measured for some
   numbers of members, then put together for 2^10 members of 2^20 values from measured parts.
3. exact: sums with a third of the members dropped in each phase, against plain integer sums.
4. poison: a softmax on scikit-learn's digits, 30 clients, 10 and 30 % of them poisoning in three ways, by a plain mean, by groups
   and median, and by groups, suspects and fifty rows of the requester's own. Integers are summed unmasked there:
   part 3 says that masks change nothing.
5. ckks: the same sums under threshold CKKS (`ckks_parties.py`), up to 10^6 values of 100 parties; needs a Python with OpenFHE on PATH, or `--openfhe`.
"""

# ruff: noqa: E402 - the installer of other people's programs lies in the repository's root
import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.sidebyside import side_by_side
from clusterai.protocol.canonical import encode
from clusterai.protocol.ids import Address
from clusterai.protocol.signing import Key
from clusterai.runtime.machine import Received, Send, Started, Tick
from clusterai.vault.adapters.masking import Libraries
from clusterai.vault.adapters.thresholdckks import NoOpenFhe, openfhe_python
from clusterai.vault.core.secagg import graph
from clusterai.vault.core.secagg.checking import Published, Shown
from clusterai.vault.core.secagg.collector import Collector, Summed
from clusterai.vault.core.secagg.member import Contribution, Member
from clusterai.vault.core.secagg.messages import Spec, ToMember, to_member, to_server
from clusterai.vault.core.secagg.quantise import Grid, decode_mean, plan
from clusterai.vault.core.secagg.quantise import encode as quantised
from clusterai.vault.core.secagg.robust import Rule, TooFewGroups, combine
from clusterai.vault.core.secagg.suspects import Suspects

SERVER = Key(b"\x77" * 32)
LIBRARIES = Libraries()
GRID = Grid(clip=1e9, reach=8.0)
Reals = npt.NDArray[np.float64]


class Round:
    """All ends in one process, timed apart."""

    def __init__(
        self, count: int, length: int, dropped: int, phase: int = 2, largest: int = GRID.largest
    ) -> None:
        made = [Key(blake3(b"bench" + i.to_bytes(4)).digest()) for i in range(count)]
        self.keys = {key.address: key for key in made}
        self.spec: Spec = plan(
            SERVER.address, tuple(self.keys), length=length, largest=largest, nonce=bytes(32), beacon=bytes(32),
            purpose=bytes(32), expires_s=10**9,
        )  # fmt: skip
        top = largest
        self.inputs = np.random.default_rng(1).integers(-top, top, (count, length), endpoint=True)
        self.gone = set(range(dropped))
        self.phase = phase
        self.client_s = [0.0] * count
        self.server_s = 0.0
        self.sent = [0] * count
        self.received = [0] * count

    def play(self) -> Summed:
        everyone = graph.members(self.spec)
        server = Collector(self.spec, SERVER, LIBRARIES, 1e6)
        members = [
            Member(self.spec, self.keys[who], who, Contribution(self.inputs[i]), LIBRARIES)
            for i, who in enumerate(everyone)
        ]
        began = time.process_time()
        todo: list[Any] = list(server.step(Started(), 0))
        now_s = 0.0
        while server.outcome is None:
            replies: list[tuple[Address, bytes]] = []
            sends: list[Send] = [effect for effect in todo if isinstance(effect, Send)]
            for effect in sends:
                i = everyone.index(effect.to)
                raw = encode(effect.frame)
                self.server_s += time.process_time() - began
                self.received[i] += len(raw)
                kinds = ("Invite", "Neighbours", "Boxes", "Roll", "Endorsed")
                if i in self.gone and kinds.index(type(effect.frame).__name__) >= self.phase:
                    began = time.process_time()
                    continue
                began = time.process_time()
                frame: ToMember = to_member(raw)
                back = encode(members[i].answer(frame, 0))
                self.client_s[i] += time.process_time() - began
                self.sent[i] += len(back)
                replies.append((effect.to, back))
                began = time.process_time()
            todo = []
            for who, back in replies:
                todo.extend(server.step(Received(who, to_server(back)), now_s))
            if server.outcome is None and not any(isinstance(effect, Send) for effect in todo):
                now_s += 2e6
                todo.extend(server.step(Tick(), now_s))
        self.server_s += time.process_time() - began
        self.server = server
        assert isinstance(server.outcome, Summed), server.outcome
        return server.outcome

    def exact(self, outcome: Summed) -> bool:
        left_out = self.gone if self.phase <= 2 else set[int]()
        there = [i for i in range(len(self.inputs)) if i not in left_out]
        return bool((outcome.values == self.inputs[there].sum(axis=0)).all())


def flower(count: int, length: int, shares: int, threshold: int, dropped: int) -> dict[str, Any] | None:
    from scripts import install  # the repository's own

    python = install.HOME / "peers" / "flower" / "bin" / "python"
    if not python.exists():
        return None
    command = [str(python), str(ROOT / "bench" / "flower_secagg.py")]
    arguments = map(str, (count, length, shares, threshold, dropped))
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


TIMES: dict[str, tuple[float | None, ...]] = {}
ACCURACY: dict[str, tuple[float | None, ...]] = {}
"""For the plots."""


def rounds(quick: bool) -> None:
    print(
        "\nround: seconds of the processor, in one process; a client's mean, the server's, all together; bytes of a client, both ways"
    )
    sizes = [(10, 100_000), (30, 100_000), (10, 1 << 20)]
    if not quick:
        sizes += [(100, 10_000), (30, 1 << 20)]
    for count, length in sizes:
        for dropped in (0, count // 3):
            ours = Round(count, length, dropped)
            began = time.process_time()
            outcome = ours.play()
            whole = time.process_time() - began
            assert ours.exact(outcome)
            shares = (ours.spec.degree or count - 1) + 1
            told = f"{count:4} x {length:8}, {dropped:2} dropped, {shares} shares, {ours.spec.threshold} open"
            stays = [s for i, s in enumerate(ours.client_s) if i not in ours.gone]
            traffic = statistics.mean(a + b for a, b in zip(ours.sent, ours.received, strict=True))
            print(
                f"{told}: ours   {statistics.mean(stays):6.3f} {ours.server_s:7.3f} {whole:7.2f} s {traffic:11.0f} B"
            )
            name = f"{count} x {length:,}{f', {dropped} dropped' if dropped else ''}"
            TIMES[name] = (whole, None)
            peer = flower(count, length, shares, ours.spec.threshold, dropped)
            if peer is None:
                print(f"{told}: Flower isn't installed (scripts/install.py peers flower) or failed")
                continue
            TIMES[name] = (whole, peer["whole_s"])
            print(
                f"{told}: Flower {peer['client_s']:6.3f} {peer['server_s']:7.3f} {peer['whole_s']:7.2f} s "
                f"{peer['bytes_per_client']:11.0f} B, ours takes {whole / peer['whole_s']:.2f} of its time, "
                f"{traffic / peer['bytes_per_client']:.2f} of its bytes, its error {peer['error']}"
            )


def traffic(quick: bool) -> None:
    print("\ntraffic: a member's bytes, both ways, over 2 bytes a value in the clear; 16-bit values")
    top = Grid(clip=1.0).largest
    overheads: dict[int, float] = {}
    for count in (32, 128) if quick else (32, 128, 256):
        length = 4096
        ours = Round(count, length, 0, largest=top)
        outcome = ours.play()
        both = statistics.mean(a + b for a, b in zip(ours.sent, ours.received, strict=True))
        vector = length * ours.spec.bits / 8
        overheads[count] = both - vector
        published = len(encode(Published(outcome.transcript)))
        shown = len(encode(Shown(ours.spec.round(), (ours.server.opening(0),))))
        print(
            f"{count:4} members, degree {ours.spec.degree or count - 1}, {ours.spec.bits} bits: {overheads[count]:8.0f} B "
            f"besides the vector; to check afterwards: transcript {published} B, one chunk {shown} B"
        )
    # The parts grow with members (cohort, roll, a quorum of endorsements) and with neighbours (adverts, boxes, shares).
    rows = [(count, graph.sparse(count, int(0.1 * count))[0] or count - 1) for count in overheads]
    by = np.linalg.lstsq(
        np.array([[count, degree] for count, degree in rows], float),
        np.array(list(overheads.values())),
        rcond=None,
    )[0]
    count, length = 1024, 1 << 20
    spec = plan(
        SERVER.address, tuple(blake3(bytes([i // 256, i % 256])).digest()[:20] for i in range(count)), length=length,
        largest=top, nonce=bytes(32), beacon=bytes(32), purpose=bytes(32), expires_s=1,
    )  # fmt: skip
    rest = float(by[0] * count + by[1] * spec.degree)
    whole = length * spec.bits / 8 + rest
    print(f"fitted: {by[0]:.0f} B a member of the round and {by[1]:.0f} B a neighbour")
    print(
        f"2^10 members of 2^20 values, degree {spec.degree}: {length * spec.bits // 8} B of vector + {rest:.0f} B = "
        f"{whole / (2 * length):.3f} times the clear (Bonawitz et al. 2017 state 1.73)"
    )


def exact(quick: bool) -> None:
    print("\nexact: a third dropped in each phase")
    for count in (9, 30) if quick else (9, 30, 90):
        for phase in range(5):
            ours = Round(count, 2000, count // 3, phase)
            print(f"{count:4} members, {count // 3} gone in phase {phase}: exact {ours.exact(ours.play())}")


# --- poisoning ---


class Digits:
    """A softmax regression, federated over clients with equal shares of the training rows."""

    def __init__(self, clients: int, seed: int) -> None:
        from sklearn.datasets import load_digits

        load: Any = load_digits
        pixels, labels = load(return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(labels))
        x, y = pixels[order] / 16.0, labels[order]
        x = np.column_stack([x, np.ones(len(x))])
        self.test = (x[:400], y[:400])
        self.own = (x[400:450], y[400:450])
        self.parts = [(x[450 + i :: clients], y[450 + i :: clients]) for i in range(clients)]

    @staticmethod
    def step(weights: Reals, x: Reals, y: Any, steps: int = 5, rate: float = 0.5) -> Reals:
        """The update of some local steps."""
        w = weights.reshape(65, 10).copy()
        for _ in range(steps):
            scores = x @ w
            scores -= scores.max(axis=1, keepdims=True)
            chance = np.exp(scores)
            chance /= chance.sum(axis=1, keepdims=True)
            chance[np.arange(len(y)), y] -= 1
            w -= rate * x.T @ chance / len(y)
        return w.reshape(-1) - weights

    def accuracy(self, weights: Reals) -> float:
        x, y = self.test
        return float(((x @ weights.reshape(65, 10)).argmax(axis=1) == y).mean())


def poisoned(attack: str, digits: Digits, weights: Reals, part: int, clip: float) -> Reals:
    """What a poisoner sends: it is not clipped, it sends what it likes."""
    x, y = digits.parts[part]
    honest = Digits.step(weights, x, y)
    match attack:
        case "boosted":
            return -20 * honest
        case "turned, inside the bound":
            return -clip * honest / np.linalg.norm(honest)
        case _:
            wrong = Digits.step(weights, x, 9 - y)
            return clip * wrong / max(float(np.linalg.norm(wrong)), clip)


def train(attack: str, share: float, way: str, seed: int, turns: int) -> tuple[float, int, int]:
    """Accuracy, poisoners excluded, honest clients excluded."""
    clients, clip = 30, 0.5
    digits = Digits(clients, seed)
    bad = set(range(round(share * clients)))
    who = [Address(blake3(f"{seed}/{i}".encode()).digest()[:20]) for i in range(clients)]
    number = {address: i for i, address in enumerate(who)}
    grid = Grid(clip=clip, value_bits=16)
    free = Grid(clip=1e9, reach=50.0, value_bits=24)
    suspects, out, weights = Suspects(), set[Address](), np.zeros(650)
    for turn in range(turns):
        cohort = tuple(sorted(address for address in who if address not in out))
        size = {"mean": len(cohort), "median": 3, "suspects": 2}[way]
        drawn = graph.groups(cohort, blake3(f"{seed}/{turn}".encode()).digest(), max(1, len(cohort) // size))
        means: list[Reals] = []
        for group in drawn:
            total = np.zeros(650)
            for address in group:
                i = number[address]
                if i in bad:
                    update = poisoned(attack, digits, weights, i, clip)
                    total += decode_mean(quantised(update, free), free)
                else:
                    update = Digits.step(weights, *digits.parts[i])
                    total += decode_mean(quantised(update, grid), grid)
            means.append(total / len(group))
        table = np.stack(means)
        if way == "mean":
            weights = weights + table[0]
            continue
        own = Digits.step(weights, *digits.own) if way == "suspects" else None
        rule: Rule = "mean" if way == "suspects" else "median"
        try:
            found = combine(table, clip, rule, trusted=own)
        except TooFewGroups:
            continue
        suspects.saw(drawn, found.bad)
        out |= set(suspects.excluded())
        weights = weights + found.update
    named = {number[address] for address in out}
    return digits.accuracy(weights), len(named & bad), len(named - bad)


def poison(quick: bool) -> None:
    print(
        "\npoison: test accuracy on digits after 40 rounds, mean of seeds; (poisoners, honest clients) excluded"
    )
    seeds, turns = (2, 40) if quick else (5, 40)
    for attack in ("boosted", "turned, inside the bound", "labels turned"):
        for share in (0.0, 0.1, 0.3):
            cells: list[str] = []
            told: list[float] = []
            for way in ("mean", "median", "suspects"):
                ran = [train(attack, share, way, seed, turns) for seed in range(seeds)]
                good = statistics.mean(accuracy for accuracy, _, _ in ran)
                caught = statistics.mean(found for _, found, _ in ran)
                told.append(good)
                cells.append(f"{way} {good:.3f} ({caught:.1f}, {sum(honest for *_, honest in ran)})")
            ACCURACY[f"{attack}, {share:.0%}"] = tuple(told)
            print(f"{attack:25} {share:4.0%} of 30: {'   '.join(cells)}")


def ckks(quick: bool) -> None:
    print("\nckks: wall seconds, one party after the other", flush=True)
    try:
        python = openfhe_python(SETTINGS["openfhe"])
    except NoOpenFhe as missing:
        print(missing)
        return
    small = ["3x10000", "3x10000x1e9", "10x10000"]
    large = ["10x100000", "100x100000", "10x1000000", "100x1000000"]
    subprocess.run(
        [python, str(ROOT / "bench" / "ckks_parties.py"), *small, *([] if quick else large)], check=True
    )


def drawn(folder: Path) -> None:
    if TIMES:
        title = "A whole round: seconds of the processor, members x values"
        told = side_by_side(title, TIMES, ("ours", "Flower's SecAgg+"), unit=" s", log=True)
        (folder / "secagg-rounds.svg").write_text(told)
    if ACCURACY:
        ways = ("one sum, mean", "groups of 3, median", "groups of 2, suspects")
        title = "Accuracy on digits after 40 rounds, by attack and share of poisoners"
        (folder / "secagg-poison.svg").write_text(side_by_side(title, ACCURACY, ways, top=1.0))


SETTINGS: dict[str, str | None] = {"openfhe": None}
PARTS = {"ckks": ckks, "round": rounds, "traffic": traffic, "exact": exact, "poison": poison}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="round,traffic,exact,poison,ckks")
    parser.add_argument("--openfhe")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--svg", type=Path, help="where plots of what was run are put")
    options = parser.parse_args()
    SETTINGS["openfhe"] = options.openfhe
    for name in options.parts.split(","):
        PARTS[name](options.quick)
    if options.svg is not None:
        drawn(options.svg)
