"""The vault's side of federated training: `host(vault)` is what a node lends orders and calls to.

What a requester's program answers is never passed on: it goes through `core.vector` first. The order's answer is a commitment; the
vector itself leaves by secure aggregation, or, where the run isn't masked, by a call.
"""

import asyncio
import atexit
import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import structlog

from clusterai.protocol import canonical
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.signing import signed_by
from clusterai.protocol.vaults import Operation, subject
from clusterai.sandbox.adapters import residue
from clusterai.vault.adapters.aggregation import Declined, SumDesk
from clusterai.vault.adapters.hosting import Vault
from clusterai.vault.core.secagg.checking import Checked
from clusterai.vault.core.secagg.member import Contribution, Terms
from clusterai.vault.core.secagg.messages import Spec
from clusterai.vault.core.terms import Denied
from clusterai.work.calls import Frame
from clusterai.work.engine import Stats, Unfit
from clusterai.work.hosting import Refused, Taken, answered, member_key
from clusterai.work.streams import QueueStream
from clusterai.work.training.adapters.blocks import deal
from clusterai.work.training.adapters.noise import drawn
from clusterai.work.training.adapters.notes import KEPT_S, Kept, Note, Notes
from clusterai.work.training.adapters.studio import Performed, Studio
from clusterai.work.training.core import privacy, vector
from clusterai.work.training.core.bundle import Bundle, decode_bundle
from clusterai.work.training.core.once import Once
from clusterai.work.training.inside import records
from clusterai.work.training.spec import (
    KIND_NAME,
    LEAST_GROUP,
    Begin,
    Done,
    End,
    Good,
    Hello,
    Hi,
    Masking,
    Plain,
    Put,
    Round,
    Run,
    Sorry,
    Vector,
    Why,
    Words,
    commitment,
    decode_call,
)

log: structlog.stdlib.BoundLogger = structlog.get_logger("training")

FLOWER = "1.41.0"
MOST_RUNS = 16
MOST_WAITING = 8
MOST_NOTED_BYTES = 64 << 20
"""Of what apps' contexts hold: more of it doesn't outlive the process."""
MEMORY = next((place for place in ("/dev/shm",) if os.path.isdir(place)), None)  # noqa: S108, PTH112


class Contributed(msgspec.Struct):
    """What one round put by, until the run ends."""

    order: Round
    contribution: vector.Contribution
    salt: bytes
    cost: int = 0
    once: Once = msgspec.field(default_factory=Once)
    sums: set[bytes] = msgspec.field(default_factory=set[bytes])
    """Those of its sums that this very process has begun."""


class Study:
    """One run at this vault."""

    def __init__(self, run: Run, grant: Digest, bundle: Bundle, place: int) -> None:
        self.run, self.grant, self.bundle, self.place = run, grant, bundle, place
        self.name = run.digest
        self.messages: dict[Digest, bytes] = {}
        self.rounds: dict[int, Contributed] = {}
        self.failures: dict[int, str] = {}
        self.states: dict[int, bytes] = {}
        """by block"""
        self.private: dict[Digest, int] = {}
        """Orders with ε in the order in which they came; what one costs follows from its place."""
        self.tries: dict[Digest, int] = {}
        self.touched_s = time.monotonic()
        self.turn = asyncio.Lock()

    def note(self) -> Note:
        fits = sum(map(len, self.states.values())) <= MOST_NOTED_BYTES
        states = dict(self.states) if fits else {}
        return Note(
            bytes(self.grant),
            tuple(self.private),
            {bytes(order): count for order, count in self.tries.items()},
            states,
        )

    def recall(self, note: Note, rounds: list[Kept]) -> None:
        """What was known before the process died."""
        self.private = {Digest(order): place for place, order in enumerate(note.private)}
        self.tries = {Digest(order): count for order, count in note.tries.items()}
        self.states = dict(note.states)
        for it in sorted(rounds, key=lambda kept: kept.order.number):
            self.rounds[it.order.number] = Contributed(
                it.order, it.contribution(), it.salt, it.cost, Once(it.cohort, it.sums, it.among)
            )


class Training:
    """The service of one vault."""

    def __init__(
        self, vault: Vault, studio: Callable[[], Studio], clock: Callable[[], float] = time.time
    ) -> None:
        """
        Args:
            studio: makes the studio when the first run begins, since that starts programs.
        """
        self.vault = vault
        self.model = bytes(subject(vault.dataset, KIND_NAME))
        self.engine = self
        self._clock = clock
        self._make_studio = studio
        self._studio: Studio | None = None
        self._runs: dict[Digest, Study] = {}
        self._taken = Taken(MOST_WAITING, 30.0)
        self._opening = asyncio.Lock()
        self._notes = Notes(vault.shelf("training"))
        self._notes.sweep()
        self._key = member_key(KIND_NAME, vault.key, vault.dataset)
        self._sums = SumDesk(self._key, self.offered, Terms(), clock, _checked, endorses=self.endorsed)

    @property
    def member(self) -> Address:
        """The key that signs in secure sums."""
        return self._key.address

    # --- the engine: orders ---

    def submit(self, request: Round, /) -> QueueStream:
        """
        Raises:
            Busy, Unfit.
        """
        self._taken.room()
        study = self._runs.get(Digest(request.run))
        if study is None:
            raise Unfit("this vault knows no such run: begin it by a call first")
        why = self._objection(study, request)
        if why is not None:
            raise Unfit(why)
        return self._taken.take(lambda: self._work(study, request), ends=True)

    def _objection(self, study: Study, request: Round) -> str | None:
        run = study.run
        if request.model != self.model:
            return "the order is for another vault"
        if request.requester != run.requester or not signed_by(
            Address(run.requester), request.signing_digest(), request.signature
        ):
            return "the order isn't signed by the run's requester"
        if request.grant != study.grant:
            return "the order says another grant than the run"
        given = study.rounds.get(request.number)
        if given is not None and given.order == request:
            return None  # answered before, and its answer is told again
        if given is not None or request.number < max(study.rounds, default=-1):
            return "this round was ordered before: order another"
        if request.message not in study.messages:
            return "the round's message isn't here: bring it by a call first"
        return None

    async def _work(self, study: Study, request: Round) -> bytes:
        try:
            return (await self._round(study, request)).canonical()
        except Denied as denied:
            sorry = Sorry(request.digest, denied.code[:40], denied.detail[:600])
        except NoAnswer as failed:
            sorry = Sorry(request.digest, "failed", str(failed)[:600])
        except Exception as error:
            # Words of ours could tell of rows: they go into the owner's log alone.
            log.exception("training_failed", error=type(error).__name__)
            sorry = Sorry(request.digest, "failed", "the vault couldn't do it; its owner's log says why")
        return sorry.canonical()

    async def _round(self, study: Study, request: Round) -> Done:
        """
        Raises:
            NoAnswer: the app failed, where that may be told. Denied.
        """
        async with study.turn:
            # Two orders of one round may have waited for this.
            if (why := self._objection(study, request)) is not None:
                raise NoAnswer(why)
            run, order = study.run, request.digest
            study.touched_s = time.monotonic()
            if request.number in study.rounds:
                return await self._done(study.rounds[request.number])
            message = study.messages[Digest(request.message)]
            content = records.decode(message)
            self.vault.permit(study.grant, Address(run.requester), Operation.TRAINING, Digest(run.app))
            cost, delta_pico = self._cost(study, request, content)
            if cost > request.epsilon_micro:
                raise NoAnswer(
                    f"the round costs {cost} millionths of ε, the order allows {request.epsilon_micro}"
                )
            spent = await asyncio.to_thread(self.vault.spend, study.grant, order, cost, delta_pico)
            if spent.closed:
                # Its run was ended, or forgotten, and begun again. To compute it once more would give a second answer for one ε, and by the
                # same noise: a program that answers nothing one time and rows the other would learn them exactly, by subtracting.
                raise NoAnswer("this order was answered before its run ended: order another round")
            # Only what was spent has a place: an order that was refused must not make the next one cheaper.
            if run.noise_milli:
                study.private.setdefault(order, len(study.private))
            study.tries[order] = study.tries.get(order, 0) + 1
            await asyncio.to_thread(self._notes.keep, study.name, study.note())
            made = await self._contribution(study, request, message, content)
            if self._runs.get(study.name) is not study:
                raise NoAnswer("the run ended while this was computed")
            given = Contributed(request, made, os.urandom(32), cost)
            # Before it is answered: whoever asks again after a kill is told the same, and nothing is spent again.
            await asyncio.to_thread(self._notes.keep_round, study.name, kept_of(given))
            await asyncio.to_thread(self._notes.keep, study.name, study.note())
            study.rounds[request.number] = given
            for number in [number for number in study.rounds if number < request.number - 1]:
                del study.rounds[number]
                await asyncio.to_thread(self._notes.drop_round, study.name, number)
            return await self._done(given)

    async def _done(self, given: Contributed) -> Done:
        """
        Raises:
            Denied: nobody came back for it, and its use was closed with nothing.
        """
        made, order = given.contribution, given.order.digest
        bound = commitment(given.salt, _bytes(made))
        use = await asyncio.to_thread(self.vault.used, order, bound)
        return Done(
            order, bound, len(made.vector), made.metrics, made.clipped, given.cost, canonical.encode(use)
        )

    def _cost(self, study: Study, request: Round, content: records.Records) -> tuple[int, int]:
        """ε of this round in millionths: what all rounds cost with it, less what they did without; δ is paid with the first."""
        run = study.run
        if not run.noise_milli:
            return 0, 0
        layout = vector.layout_of(content)
        if not request.training or layout is None:
            raise NoAnswer("with ε, only rounds of training with one record of arrays are answered")
        z = privacy.widened(run.noise_milli, layout.size, run.shares)
        place = study.private.get(request.digest, len(study.private))
        before, after = (privacy.epsilon_micro(z, rounds, run.delta_pico) for rounds in (place, place + 1))
        return after - before, run.delta_pico * (place == 0)

    async def _contribution(
        self, study: Study, request: Round, message: bytes, content: records.Records
    ) -> vector.Contribution:
        run = study.run
        async with self.vault.mount() as data, self._dealt(study, data) as folders:
            if not run.noise_milli:
                left = await self._perform(study, request, message, folders[0], 0)
                if left.reply is None:
                    study.failures[request.number] = left.why
                    raise NoAnswer("the app gave no reply")
                try:
                    most = self.vault.rows if run.groups == 1 else 1
                    return vector.contribution(
                        content, left.reply, norm=run.norm, weight_key=run.weight, most_weight=most
                    )
                except vector.Unusable as error:
                    study.failures[request.number] = str(error)
                    raise NoAnswer("the app's reply can't be summed") from None
            layout = vector.layout_of(content)
            assert layout is not None, "costed before"
            runs = [self._perform(study, request, message, folder, at) for at, folder in enumerate(folders)]
            replies = [left.reply for left in await asyncio.gather(*runs)]
        step = privacy.step_of(run.norm, run.noise_milli, run.shares)
        # An order that was done twice was answered once; its noise is another all the same.
        beacon = study.name + study.tries[request.digest].to_bytes(4)
        noise = drawn(self.vault.noise_seed(request.digest, beacon), layout.size)
        return vector.blocked(content, replies, norm=run.norm, step=step, noise=noise)

    @asynccontextmanager
    async def _dealt(self, study: Study, data: Path) -> AsyncGenerator[list[Path]]:
        """Folders that an app's user may read, in one that only we may enter. The same deal in every round of a run, or a person would
        be in several blocks."""
        key = self.vault.noise_seed(study.name, b"blocks")
        with tempfile.TemporaryDirectory(prefix=f"{residue.prefix()}blocks-", dir=MEMORY) as folder:
            unit = self.vault.schema.unit
            yield await asyncio.to_thread(deal, data, Path(folder), study.run.blocks, unit, key)

    async def _perform(
        self, study: Study, request: Round, message: bytes, data: Path, block: int
    ) -> Performed:
        run = study.run
        assert self._studio is not None, "made when the run began"
        about = {
            "run": int.from_bytes(study.name[:7]),
            "id": f"{request.number}.{block}",
            "node": int.from_bytes(request.model[:7]),
            "type": request.action,
            "group": request.group,
        }
        # A block is a node to the app: it must not be able to tell that it is one.
        node = {
            "partition-id": study.place * run.blocks + block,
            "num-partitions": len(run.subjects) * run.blocks,
        }
        left = await self._studio.perform(
            study.bundle, message, about, node, run.configured(), data, study.states.get(block, b"")
        )
        if left.reply is not None:
            study.states[block] = left.state
        return left

    def stats(self) -> Stats:
        return self._taken.stats()

    async def close(self) -> None:
        await self._taken.close()
        self._runs.clear()

    # --- calls ---

    async def answer(self, sender: Address, body: bytes) -> bytes:
        """
        Raises:
            Denied: the call's seal isn't right.
        """
        return await answered(self.vault, sender, body, decode_call, self._answered)

    async def _answered(self, who: Address, call: Any) -> msgspec.Struct:
        match call:
            case Hello():
                membership = self.vault.cohorts.membership(self.member)
                return Hi(self.member, self.vault.dataset, self.vault.snapshot, FLOWER, membership)
            case Begin():
                return await self._begin(who, call)
            case Put(run, message):
                return self._put(self._study(who, run), message)
            case Masking(run, number, frame):
                return await self._mask(self._study(who, run), number, frame)
            case Plain(run, number):
                return self._plain(self._study(who, run), number)
            case Why(run, number):
                return Words(self._study(who, run).failures.get(number, "")[:2000])
            case End(run):
                self._runs.pop(self._study(who, run).name)
                await asyncio.to_thread(self._notes.forget, Digest(run))
                return Good()
            case _:
                raise AssertionError(call)

    def _study(self, who: Address, run: bytes) -> Study:
        study = self._runs.get(Digest(run))
        if study is None or study.run.requester != who:
            raise Refused("unknown_run", "this vault knows no such run of yours: begin it")
        study.touched_s = time.monotonic()
        return study

    async def _begin(self, who: Address, call: Begin) -> Good:
        run = call.run
        if run.requester != who:
            raise Refused("requester", "a run is begun by its own requester")
        try:
            bundle = decode_bundle(call.bundle)
        except Malformed as error:
            raise Refused("bundle", str(error)) from None
        if bundle.digest != run.app:
            raise Refused("bundle", "the bundle isn't the app that the run names")
        if self.model not in run.subjects:
            raise Refused("stranger", "this vault isn't one of the run's")
        place = run.subjects.index(self.model)
        if run.members[place] != self.member:
            raise Refused("stranger", "the run names another key than this vault's")
        permit = self.vault.permit(Digest(call.grant), who, Operation.TRAINING, Digest(run.app))
        if permit.epsilon_micro and not run.noise_milli:
            raise Refused("epsilon", "the grant is for training with ε, and the run has no noise")
        if run.together and not self.vault.policy.only:
            raise Refused(
                "noise",
                "noise in shares trusts the other vaults, and this owner's policy names no requesters: let each vault add all of it",
            )
        if len(run.members) < 3 and run.masked:
            raise Refused(
                "few", "sums over fewer than three vaults hide nobody: use ε without masks, or more vaults"
            )
        if run.masked:
            await self.vault.cohorts.check(call.memberships, run.members, run.subjects, KIND_NAME)
        async with self._opening:
            if self._studio is None:
                self._studio = await asyncio.to_thread(self._make_studio)
            self._forget()
            if run.digest not in self._runs:
                if len(self._runs) >= MOST_RUNS:
                    raise Refused("busy", f"{MOST_RUNS} runs are open here: try later")
                note, rounds = await asyncio.to_thread(self._notes.find, run.digest)
                study = Study(run, Digest(call.grant if note is None else note.grant), bundle, place)
                if note is not None:
                    study.recall(note, rounds)
                self._runs[run.digest] = study
        return Good()

    def _forget(self) -> None:
        old = time.monotonic() - KEPT_S
        for name in [name for name, study in self._runs.items() if study.touched_s < old]:
            del self._runs[name]
            self._notes.forget(name)

    def _put(self, study: Study, message: bytes) -> Good:
        try:
            records.decode(message)
        except records.BadRecords as error:
            raise Refused("message", str(error)) from None
        # The last two: the one that is being answered, and the next.
        while len(study.messages) >= 2:
            del study.messages[next(iter(study.messages))]
        study.messages[canonical.content_digest(message)] = message
        return Good()

    async def _mask(self, study: Study, number: int, frame: bytes) -> Frame:
        if number not in study.rounds or not study.run.masked:
            raise Refused("round", "there is no such round to be masked")
        return Frame(await self._sums.answer(Address(study.run.requester), frame))

    async def offered(self, spec: Spec, server: Address) -> Contribution:
        """What goes into a sum, and into which: `Once`.

        Raises:
            Declined.
        """
        study, given = self._given(spec)
        if (why := _unfit(study.run, spec, server)) is not None:
            raise Declined("spec", why)
        name = bytes(spec.round())
        if name not in given.sums:
            if (why := given.once.begin(spec)) is not None:
                raise Declined("twice", why)
            given.sums.add(name)
            # Before anything of it leaves: a process that is started anew must know.
            await asyncio.to_thread(self._notes.keep_round, study.name, kept_of(given))
        return Contribution(given.contribution.vector, 1)

    async def endorsed(self, spec: Spec, members: tuple[Address, ...]) -> None:
        """
        Raises:
            Declined: a sum of this round is endorsed already, and these aren't its members.
        """
        study, given = self._given(spec)
        before = given.once.among
        if (why := given.once.endorse(spec, members)) is not None:
            raise Declined("twice", why)
        if given.once.among != before:
            await asyncio.to_thread(self._notes.keep_round, study.name, kept_of(given))

    def _given(self, spec: Spec) -> tuple[Study, Contributed]:
        for study in self._runs.values():
            for given in study.rounds.values():
                if spec.purpose == purpose(study.name, given.order.number):
                    return study, given
        raise Declined("unknown", "no round of this vault's has this purpose")

    def _plain(self, study: Study, number: int) -> Vector:
        given = study.rounds.get(number)
        if given is None or study.run.masked:
            raise Refused("round", "there is no such round, or it leaves by secure aggregation only")
        return Vector(given.salt, _bytes(given.contribution))


class NoAnswer(Exception):
    """The order comes to nothing: {why}. Told in the clear, so nothing of rows is in it."""


def _unfit(run: Run, spec: Spec, server: Address) -> str | None:
    """Why a sum isn't one for this run's rounds."""
    if server != run.requester or spec.bits != 64:
        return "the sum isn't the run's requester's, or of other numbers"
    if not set(spec.cohort) <= set(run.members) or len(spec.cohort) < run.quorum:
        return "the sum is over others than the run's vaults, or over too few of them"
    if spec.groups > run.groups:
        return "the run's sums are over larger groups"
    if spec.groups > 1 and len(spec.cohort) < LEAST_GROUP * spec.groups:
        return "groups of fewer than three hide nobody"
    if run.together and len(spec.cohort) != len(run.members):
        return (
            "with noise in shares a round is summed over all of its vaults: the noise of fewer isn't enough"
        )
    return None


def _checked(spec: Spec, said: Checked) -> None:
    """Into the owner's log: the server of a sum lied, by what it signed itself."""
    if said.code:
        log.error("sum_false", server=Address(spec.server).hex(), code=said.code, detail=said.detail)


def purpose(run: Digest, number: int) -> Digest:
    """What a sum is for, as the members of its round have it."""
    return canonical.content_digest(b"clusterai training sum" + run + number.to_bytes(4))


def kept_of(given: Contributed) -> Kept:
    made = given.contribution
    once = given.once
    return Kept(
        given.order,
        _bytes(made),
        made.metrics,
        made.clipped,
        given.salt,
        given.cost,
        once.cohort,
        once.sums,
        once.among,
    )


def _bytes(made: vector.Contribution) -> bytes:
    return np.asarray(made.vector).astype("<i8").tobytes()


def host(vault: Vault) -> Training:
    """What `Kind.hosts` names."""
    # In memory, and under a name by which the sandbox sweeps away what a killed process left.
    folder = Path(tempfile.mkdtemp(prefix=f"{residue.prefix()}training-", dir=MEMORY))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Training(vault, lambda: Studio(folder))
