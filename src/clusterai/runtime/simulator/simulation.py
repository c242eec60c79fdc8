"""Steps machines through seeded faults, and digests everything they do.

    event ── step ──> effects, one by one: Save is written, and synced before the next other effect;
                      Send is encoded and carried; the rest goes to the process's host.
                      At a drawn place among them a doomed process dies.

Observers see each step (but for ticks that did nothing) after its effects, exactly as far as they came and stayed. An exception, of a machine or of an observer,
ends the run as `Broken`, which carries the command that repeats it.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Protocol, cast

import msgspec
from blake3 import blake3

from clusterai.protocol import canonical
from clusterai.protocol.ids import Address
from clusterai.protocol.messages import Frame
from clusterai.runtime.machine import Machine, Received, Save, Send, Started, Tick
from clusterai.runtime.simulator.faults import Faults
from clusterai.runtime.simulator.network import Network
from clusterai.runtime.simulator.process import Host, NoHost, Process
from clusterai.runtime.simulator.timeline import SECOND_US, Timeline

REMEMBERED = 40
"""Steps shown when a run breaks."""


class Observer(Protocol):
    """A checker: told of all that happens, after it happened; raises what should end the run."""

    def stepped(self, process: Process, event: Any, effects: list[Any]) -> None: ...


class Broken(Exception):
    """Seed {seed} broke after {steps} steps, at {now_s:.3f} s: {why}. Repeat it by: {command}"""

    def __init__(self, seed: int, steps: int, now_s: float, why: str, command: str, story: list[str]) -> None:
        lines = "\n".join(story)
        super().__init__(
            f"seed {seed} broke after {steps} steps, at {now_s:.3f} s: {why}\n\n{lines}\n\n"
            f"Repeat it by:\n    {command}"
        )
        self.seed = seed
        self.steps = steps
        self.why = why


class Simulation:
    """One run.

    Args:
        seed: all that is drawn follows from it.
        faults: what goes wrong, and how often.
        start_s: what clocks show at the beginning.
        frames: tagged union of what may be sent.
        command: how a person repeats this run; `Broken` shows it.

    Attributes:
        faults, faults_drawn: those of now, none once healed; and those of the beginning.
        tell: called with a readable line per step, for tracing.
    """

    def __init__(
        self,
        seed: int,
        faults: Faults,
        start_s: int = 1_000_000,
        frames: Any = Frame,
        command: str = "(no command given)",
    ) -> None:
        self.seed = seed
        self.faults = faults
        self.faults_drawn = faults
        self.start_s = start_s
        self.timeline = Timeline()
        self.network = Network(seed, faults, self.timeline, self._receive)
        self.processes: list[Process] = []
        self.observers: list[Observer] = []
        self.tell: Callable[[str], None] | None = None
        self.steps = 0
        self.crashes = 0
        self.healed = False
        self._frames = frames
        self._command = command
        self._random = Random(f"processes {seed}")
        self._hasher = blake3()
        self._story: deque[tuple[float, str, Any, list[Any]]] = deque(maxlen=REMEMBERED)

    @property
    def now_s(self) -> float:
        """True time; processes may believe otherwise."""
        return self.start_s + self.timeline.now_us / SECOND_US

    def clock_s(self, process: Process) -> float:
        """What the process takes for the time."""
        return self.start_s + (self.timeline.now_us + process.skew_us) / SECOND_US

    def spawn(
        self,
        name: str,
        address: Address,
        build: Callable[[], Machine],
        host: Host | None = None,
        tick_s: float = 1.0,
    ) -> Process:
        """Add a process; it starts when `begin` is called (or at once, if that was before)."""
        process = Process(
            len(self.processes),
            name,
            address,
            build,
            host or NoHost(),
            int(tick_s * SECOND_US),
            self.timeline.after,
            self._step,
            self.clock_s,
        )
        if self.faults.skew_us:
            process.skew_us = self._random.randint(-self.faults.skew_us, self.faults.skew_us)
        self.processes.append(process)
        return process

    def begin(self) -> None:
        """Start all processes and the network's faults."""
        for process in self.processes:
            self._start(process)
            if self.faults.crash_every_us:
                self._doom(process, self.faults)
        self.network.begin_faults()

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let `seconds` go by, or stop as soon as `until` holds; whether it did. (Asked once a virtual second.)"""
        end_us = self.timeline.now_us + int(seconds * SECOND_US)
        ask_us = self.timeline.now_us
        timeline = self.timeline
        try:
            while timeline.now_us < end_us:
                if until is not None and timeline.now_us >= ask_us:
                    if until():
                        return True
                    ask_us += SECOND_US
                if not timeline.advance():
                    break
        except Broken:
            raise
        except Exception as error:
            raise self.broken(f"{type(error).__name__}: {error}") from error
        return until is not None and until()

    def heal(self) -> None:
        """End all faults: clocks are set right, walls fall, the dead rise. What is undone must now get done."""
        self.healed = True
        self.faults = Faults(latency_us=self.faults.latency_us)
        self.network.heal()
        for process in self.processes:
            process.skew_us = 0
            process.doomed = False
            if process.machine is None:
                self._start(process)

    def kill(self, process: Process, down_s: float | None = None) -> None:
        """Crash now; restart after `down_s`, or a drawn time."""
        if process.machine is not None:
            self._crash(process, down_s)

    def send(self, process: Process, to: Address, frame: msgspec.Struct) -> None:
        """What an adapter sends by itself, past the machine: streams, mostly."""
        self.network.send(process, to, canonical.encode(frame))

    def digest(self) -> str:
        """Of every step so far: time, process, event, effects."""
        return self._hasher.hexdigest()

    def broken(self, why: str) -> Broken:
        story = [_line(line) for line in self._story]
        return Broken(self.seed, self.steps, self.now_s, why, self._command, story)

    def _receive(self, process: Process, sender: Address, packet: bytes) -> None:
        if process.machine is not None:
            self._step(process, Received(sender, canonical.decode(packet, self._frames)), sender + packet)

    def _step(
        self, process: Process, event: Any, raw: bytes | None = None, heard_s: float | None = None
    ) -> None:
        machine = process.machine
        assert machine is not None, "only the living step"
        now_us = self.timeline.now_us
        effects = machine.step(event, self.clock_s(process) if heard_s is None else heard_s)
        self.steps += 1
        process.steps += 1
        if not effects and type(event) is Tick:
            # Two fifths of all steps. Nothing happened, so there is nothing to check, to tell or to compact.
            self._hasher.update(b"%d %d\n" % (now_us, process.index))
            return
        trail = [b"%d %d " % (now_us, process.index), raw or _bytes_of(event)]
        dies_at = -1
        if process.doomed and effects:
            dies_at = self._random.randint(0, len(effects))
        journal = process.journal
        done: list[Any] = []
        unsynced = False
        for position, effect in enumerate(effects):
            if position == dies_at:
                break
            if isinstance(effect, Save):
                record = canonical.encode(effect.record)
                trail.append(record)
                journal.append((record,))
                unsynced = True
            else:
                if unsynced:
                    journal.sync()
                    unsynced = False
                if isinstance(effect, Send):
                    packet = canonical.encode(effect.frame)
                    trail.append(packet)
                    self.network.send(process, effect.to, packet)
                else:
                    trail.append(_bytes_of(effect))
                    process.host.perform(effect)
            done.append(effect)
        self._hasher.update(b"".join(trail))
        line = (self.start_s + now_us / SECOND_US, process.name, event, done)
        self._story.append(line)
        if self.tell is not None:
            self.tell(_line(line))
        if dies_at >= 0:
            lost = self._crash(process)
            while lost:
                lost -= isinstance(done.pop(), Save)
        else:
            if unsynced:
                journal.sync()
            if self.faults.compaction and self._random.random() < self.faults.compaction:
                self._compact(process, machine)
        for observer in self.observers:
            observer.stepped(process, event, done)

    def _compact(self, process: Process, machine: Machine) -> None:
        """Replace the journal by a snapshot; on the way, see that the journal said all that the machine knows."""
        snapshot = [canonical.encode(record) for record in machine.snapshot()]
        restored = self._restored(process)
        again = [canonical.encode(record) for record in restored.snapshot()]
        assert sorted(again) == sorted(snapshot), (
            f"{process} changed without a Save: {self._differences(again, snapshot)}"
        )
        process.journal.replace(snapshot)

    @staticmethod
    def _differences(journaled: list[bytes], live: list[bytes]) -> str:
        return f"journaled {[it for it in journaled if it not in live]}, live {[it for it in live if it not in journaled]}"

    def _restored(self, process: Process) -> Machine:
        machine = process.build()
        decoder = msgspec.msgpack.Decoder(machine.RECORDS)
        machine.restore([decoder.decode(record) for record in process.journal.load()])
        return machine

    def _start(self, process: Process) -> None:
        if process.machine is not None:
            return
        process.machine = self._restored(process)
        process.incarnation += 1
        process.host.started()
        if not process.alive:
            return  # it died of what its host told it
        self._step(process, Started())
        process.later(self._random.randint(1, process.tick_us), self._tick, process)

    def _tick(self, process: Process) -> None:
        process.later(process.tick_us, self._tick, process)
        self._step(process, Tick())

    def _doom(self, process: Process, faults: Faults, doomed: bool = False) -> None:
        """Draw, again and again, when `process` must die next."""
        if self.faults is faults:
            process.doomed = doomed
            delay_us = 1 + int(self._random.expovariate(1 / faults.crash_every_us))
            self.timeline.after(delay_us, self._doom, process, faults, True)

    def _crash(self, process: Process, down_s: float | None = None) -> int:
        """Returns how many of the newest saves were lost."""
        self.crashes += 1
        process.doomed = False
        lost = process.journal.crash(self._random if self.faults.torn_write else None)
        process.machine = None
        process.host.crashed()
        self.network.crashed(process)
        down_us = int(down_s * SECOND_US) if down_s is not None else 0
        if down_s is None:
            down_us = 1 + int(self._random.random() * self.faults.down_us)
        self.timeline.after(down_us, self._start, process)
        return lost


def _line(told: tuple[float, str, Any, list[Any]]) -> str:
    now_s, name, event, effects = told
    return f"{now_s:12.3f} {name:<12} {_short(event)} -> [{', '.join(map(_short, effects))}]"


def _bytes_of(value: Any) -> bytes:
    try:
        return type(value).__name__.encode() + _encoder.encode(value)
    except OverflowError:
        return repr(value).encode()  # amounts beyond 64 bits, such as an endless allowance


def _short(value: Any) -> str:
    """A readable line for the story of a broken run: bytes as their first four in hex."""
    match value:
        case Save(record):
            return f"Save {_short(record)}"
        case Send(to, frame):
            return f"Send to {to[:4].hex()} {_short(frame)}"
        case Received(sender, frame):
            return f"Received from {sender[:4].hex()} {_short(frame)}"
        case bytes():
            return value[:4].hex()
        case msgspec.Struct():
            inside = ", ".join(
                f"{field}={_short(getattr(value, field))}" for field in value.__struct_fields__
            )
            return f"{type(value).__name__}({inside})"[:300]
        case tuple():
            few = [_short(item) for item in cast("tuple[object, ...]", value)]
            return f"({', '.join(few[:4])}{', …' if len(few) > 4 else ''})"
        case int() | str() | float() | None:
            return repr(value)[:80]
        case _:
            return _name_of(value)


def _name_of(value: Any) -> str:
    """For what isn't data, such as a function: never its place in memory, which differs from run to run."""
    return getattr(value, "__qualname__", type(value).__qualname__)


_encoder = msgspec.msgpack.Encoder(order="deterministic", enc_hook=_name_of)
