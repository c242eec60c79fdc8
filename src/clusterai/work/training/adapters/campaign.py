"""The requester's side of a run: the ServerApp, its rounds, the checkpoint, and the model with its lineage card.

    FOLDER/run.json          the run; with it, and `exchanges`, a run that broke off goes on. The round that was under way: `checkpoint`
    FOLDER/exchanges/0001    what the app was answered, in order: a run that is resumed answers these again, without any vault
    FOLDER/model.npz         after each round, and the same as model.safetensors
    FOLDER/lineage.json      after each round

A resumed run starts the app anew, with the first run's parameters, and gives it the same answers; so strategies with a memory of their own
(FedAdam's moments) are where they were. Vaults aren't asked again. The round in which it broke off is asked for again with the same words, so that vaults
and gateway answer as they did: nothing is paid twice, and no ε is spent twice.
"""

import json
import secrets
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest, hex0x
from clusterai.protocol.signing import Key
from clusterai.vault.core.secagg.robust import Rule
from clusterai.work.training.adapters.checkpoint import Checkpoint, Kept, Underway, run_of
from clusterai.work.training.adapters.checkpoint import write as _write
from clusterai.work.training.adapters.packing import bundle_of
from clusterai.work.training.adapters.parties import GONE, Party, ask
from clusterai.work.training.adapters.rounds import RoundFailed, Rounds, Sum
from clusterai.work.training.adapters.saving import NUMPY, save_model
from clusterai.work.training.adapters.serverapp import AppFailed, ServerProcess
from clusterai.work.training.core import grouping, lineage, privacy, replying, strategies, vector, worth
from clusterai.work.training.core.evidence import Evidence, Group
from clusterai.work.training.inside import pipe, records
from clusterai.work.training.spec import MICRO, Hello, Hi, Run

FLOWER = "1.41.0"
MOST_TRIES = 3
"""Of one round: each that ends without a sum costs its ε again."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted.

    Attributes:
        rounds: of training, as planned; noise is chosen so that they cost no more than `epsilon`, with one in reserve.
        epsilon: None: no noise, which every vault must have granted.
        norm: no client's update is longer.
        blocks: into how many parts each vault deals its rows, with ε.
        shared_noise: `Run.together`.
        groups: 1: one sum a round. Several: one of each group, combined by `rule`, and vaults that the groups' sums speak against are done without.
        worth: with several groups, ask the app's own evaluation what each group's sum is worth; it stands in the card.
    """

    rounds: int = 3
    epsilon: float | None = None
    delta: float = 1e-5
    norm: float = 10.0
    blocks: int = 1
    masked: bool = True
    shared_noise: bool = False
    groups: int = 1
    rule: Rule = "median"
    worth: bool = False
    config: dict[str, Any] = {}
    max_price_wei: int | None = None
    round_s: float = 3600.0
    phase_s: float = 120.0


SETTINGS = {
    "requester": "identity",
    "config": "rounds or configuration",
    "norm_micro": "norm",
    "noise_milli": "ε, or what it is spread over",
    "delta_pico": "δ",
    "blocks": "blocks",
    "masked": "secure aggregation",
    "together": "noise in shares",
    "groups": "groups",
}
"""What a run keeps to the end, by its field: who says another thing asks for another run, and isn't given the old one's model."""


class Outcome(msgspec.Struct, frozen=True):
    model: Path | None
    card: dict[str, Any]
    rounds: int
    epsilon: float
    charged_wei: int
    history: tuple[dict[str, Any], ...]
    named: tuple[lineage.Named, ...] = ()


class CannotTrain(RuntimeError):
    """This run can't be done: {why}."""


class Campaign:
    """One run."""

    def __init__(
        self,
        app: Path,
        parties: Sequence[Party],
        key: Key,
        wish: Wish,
        folder: Path,
        told: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self._app, self._parties, self._key, self._wish = app, list(parties), key, wish
        self._folder, self._told_user = folder, told
        self._sources: dict[Digest, lineage.Source] = {}
        self._rounds: list[lineage.Told] = []
        self._history: list[dict[str, Any]] = []
        self._strategy, self._weight = "", "num-examples"
        self._evidence = Evidence()
        self._named: dict[Digest, lineage.Named] = {}
        self._each_group = self._evaluates = False
        self._model = b""
        self._replay: list[Path] = []
        self._number = 0
        self._exchanged = 0
        self._wasted: list[lineage.Part] = []
        self._checkpoint = Checkpoint(folder)

    async def train(self) -> Outcome:
        """
        Raises:
            CannotTrain, InUse, BadBundle, AppFailed, NoFlower.
        """
        self._checkpoint.hold()
        try:
            return await self._trained()
        finally:
            self._checkpoint.close()

    async def _trained(self) -> Outcome:
        (self._folder / "exchanges").mkdir(parents=True, exist_ok=True)
        bundle = bundle_of(self._app)
        run = await self._agree(bundle.digest)
        self._run = run
        self._ways = Rounds(
            run,
            self._key,
            self._parties,
            round_s=self._wish.round_s,
            phase_s=self._wish.phase_s,
            told=self._tell,
            sums=self._checkpoint,
        )
        gone = await self._ways.begin(
            bundle.canonical(), [self._sources[Digest(it.subject)].membership for it in self._parties]
        )
        if len(self._parties) - len(gone) < run.quorum:
            raise CannotTrain(
                f"{len(self._parties) - len(gone)} vaults began, {run.quorum} must: {list(gone.values())}"
            )
        self._nodes = {int.from_bytes(party.subject[:7]): Digest(party.subject) for party in self._parties}
        first = self._folder / "first"
        settings = {
            "run": int.from_bytes(run.digest[:7]),
            "seed": int.from_bytes(run.nonce[:4]),
            "config": self._wish.config,
            "arrays": str(first.resolve()) if first.exists() else "",
        }
        process = await ServerProcess.start(self._app.resolve(), settings, self._folder)
        try:
            await self._serve(process)
        finally:
            await process.close()
        for party in self._parties:
            try:
                await self._ways.end(party)
            except GONE as error:
                self._tell({"event": "end", "vault": party.name, "why": str(error)[:200]})
        card = self._write_card()
        model = self._folder / NUMPY
        return Outcome(
            model if model.exists() else None,
            card,
            len(self._rounds),
            card["privacy"]["epsilon"],
            card["charged_wei"],
            tuple(self._history),
            tuple(self._named.values()),
        )

    # --- the run ---

    async def _agree(self, app: Digest) -> Run:
        """The run as it was, or a new one."""
        kept = self._checkpoint.kept()
        if kept is not None:
            return await self._taken_up(kept, app)
        for party in self._parties:
            self._know(party, await self._greet(party))
        members = tuple(self._sources[Digest(party.subject)].member for party in self._parties)
        run = self._wished(secrets.token_bytes(32), app, members)
        self._save_run(run)
        return run

    def _wished(self, nonce: bytes, app: Digest, members: tuple[bytes, ...]) -> Run:
        wish, noise = self._wish, 0
        if wish.epsilon is not None:
            spare = 1 if wish.rounds > 1 else 0
            noise = int(1000 * privacy.multiplier_for(wish.epsilon, wish.rounds + spare, wish.delta)) + 2
            # Rounding on the grid widens what one person can change; 1% more noise covers 10^7 parameters.
            noise += noise // 100 + 1
        return Run(
            nonce,
            app,
            self._key.address,
            json.dumps(wish.config).encode() if wish.config else b"",
            self._weight,
            tuple(bytes(party.subject) for party in self._parties),
            members,
            round(wish.norm * MICRO),
            noise,
            round(wish.delta * privacy.PICO) if noise else 0,
            wish.blocks if noise else 1,
            wish.masked and len(self._parties) >= 3,
            wish.shared_noise and noise > 0,
            wish.groups,
        )

    async def _taken_up(self, kept: Kept, app: Digest) -> Run:
        """A vault that is away just now has dropped out, as in any round."""
        run = run_of(kept)
        self._number, self._wasted = kept.number, list(kept.wasted)
        self._sources = {Digest(it.subject): it for it in kept.sources}
        for party in self._parties:
            try:
                self._know(party, await self._greet(party))
            except CannotTrain as error:
                if Digest(party.subject) not in self._sources:
                    raise
                self._tell({"event": "dropped", "vault": party.name, "why": str(error)[:300]})
        members = tuple(self._sources[Digest(party.subject)].member for party in self._parties)
        if (run.app, run.subjects, run.members) != (
            app,
            tuple(bytes(party.subject) for party in self._parties),
            members,
        ):
            raise CannotTrain(f"{self._folder} holds another run (other app or vaults): name another folder")
        wished = self._wished(run.nonce, app, members)
        other = [said for field, said in SETTINGS.items() if getattr(run, field) != getattr(wished, field)]
        if other:
            raise CannotTrain(
                f"{self._folder} holds a run with other settings ({', '.join(other)}): give it those, or name another folder (--out)"
            )
        self._replay = sorted((self._folder / "exchanges").glob("[0-9]*"))
        return run

    def _know(self, party: Party, hi: Hi) -> None:
        """
        Raises:
            CannotTrain: its Flower isn't ours.
        """
        if hi.flower != FLOWER:
            raise CannotTrain(f"{party.name} has Flower {hi.flower}; this is {FLOWER}")
        self._sources[Digest(party.subject)] = lineage.Source(
            party.name,
            hi.dataset,
            hi.snapshot,
            party.subject,
            hi.member,
            party.grant,
            membership=hi.membership,
        )

    async def _greet(self, party: Party) -> Hi:
        try:
            return await ask(party, Hello(), Hi, 30.0)
        except GONE as error:
            raise CannotTrain(f"{party.name} can't be reached: {error}") from None

    def _save_run(self, run: Run) -> None:
        kept = Kept(
            canonical.encode(run).hex(), self._number, tuple(self._sources.values()), tuple(self._wasted)
        )
        self._checkpoint.keep(kept)

    # --- the ServerApp's questions ---

    async def _serve(self, process: ServerProcess) -> None:
        while True:
            head, blobs = await process.hear()
            match head.get("op"):
                case "nodes":
                    await process.say({"nodes": list(self._nodes)})
                case "strategy":
                    refusal = self._judge(head, blobs)
                    await process.say({"op": "refused", "why": refusal} if refusal else {})
                    if refusal:
                        raise CannotTrain(refusal)
                case "exchange":
                    await self._exchange(process, head, blobs)
                case "round":
                    self._round_done(head, blobs)
                    await process.say({})
                case "evaluated":
                    self._tell({"event": "evaluated", "round": head["round"], "metrics": head["metrics"]})
                    self._history.append({"round": head["round"], "where": "server", **head["metrics"]})
                    await process.say({})
                case "done":
                    return
                case "refused":
                    raise CannotTrain(head["why"])
                case other:
                    raise AppFailed(f"the ServerApp's process asks for {other!r}")

    def _judge(self, head: dict[str, Any], blobs: list[bytes]) -> str | None:
        names = [str(name) for name in head["names"]]
        self._strategy = names[0].rstrip("*") if names else ""
        if head.get("weight"):
            if head["weight"] != self._run.weight:
                return f"the strategy weighs by {head['weight']!r}; say --weight {head['weight']}"
            self._weight = head["weight"]
        first = self._folder / "first"
        if not first.exists() and records.decode(blobs[0]):
            _write(first, blobs[0])
        if note := strategies.notice(names):
            self._tell({"event": "notice", "why": note})
        self._each_group = strategies.compares(names)
        self._evaluates = self._wish.worth and bool(head.get("evaluates"))
        if self._wish.worth and not self._evaluates:
            why = "the app evaluates on no rows of its own (evaluate_fn): what groups are worth isn't known"
            self._tell({"event": "notice", "why": why})
        return strategies.objection(names, self._run.groups)

    async def _exchange(self, process: ServerProcess, head: dict[str, Any], blobs: list[bytes]) -> None:
        self._exchanged += 1
        place = self._folder / "exchanges" / f"{self._exchanged:04}"
        if self._replay and self._replay[0] == place:
            self._replay.pop(0)
            told, got = _unpacked(place.read_bytes())
            self._restore(told)
            await process.say({"replies": told["replies"]}, got)
            return
        messages: list[dict[str, Any]] = head["messages"]
        asked: list[int] = [it["node"] for it in messages]
        bodies = {it["body"] for it in messages}
        types = {it["type"] for it in messages}
        if len(bodies) != 1 or len(types) != 1:
            raise CannotTrain(
                "the app sends clients different messages in one round; of sums, all get the same"
            )
        entry = messages[0]
        message, type_ = blobs[int(entry["body"])], str(entry["type"])
        among = [who for node in asked if (who := self._nodes.get(node)) and who not in self._named]
        why = self._cannot(type_, among)
        if why:
            self._tell({"event": "withheld", "type": type_, "why": why})
            replies: list[dict[str, Any]] = [{"node": node, "body": -1, "why": why} for node in asked]
            got: list[bytes] = []
            round_told: lineage.Told | None = None
        else:
            replies, got, round_told = await self._sum(process, message, type_, entry["group"], among, asked)
        kept = {"replies": replies, "told": msgspec.to_builtins(round_told) if round_told else None}
        _write(place, pipe.packed(kept, got))
        self._checkpoint.arrived()
        await process.say({"replies": replies}, got)

    def _cannot(self, type_: str, among: list[Digest]) -> str:
        if not type_.startswith(("train", "evaluate")):
            return f"messages of type {type_!r} aren't answered by vaults: their replies couldn't be summed"
        if self._run.noise_milli and not type_.startswith("train"):
            return "with ε vaults tell no metrics: evaluate the model on data of your own (evaluate_fn)"
        if self._run.together and len(among) != len(self._parties):
            return "with noise in shares a round is summed over all vaults: let the strategy take all of them"
        return ""

    async def _sum(
        self,
        process: ServerProcess,
        message: bytes,
        type_: str,
        group_: str,
        among: list[Digest],
        asked: list[int],
    ) -> tuple[list[dict[str, Any]], list[bytes], lineage.Told]:
        content = records.decode(message)
        run, training = self._run, type_.startswith("train")
        for attempt in range(MOST_TRIES):
            way = self._set_out(message, type_, group_, among, resumed=not attempt)
            number = way.number
            try:
                summed = await self._ways.perform(
                    number, message, type_, group_, among, way.left_wei, self._most_micro(content)
                )
                break
            except RoundFailed as error:
                self._wasted += error.parts
                self._save_run(run)
                self._tell({"event": "failed", "number": number, "why": str(error)})
                if attempt + 1 == MOST_TRIES:
                    self._checkpoint.arrived()
                    raise CannotTrain(str(error)) from None
        else:
            raise AssertionError("it broke off, or raised")
        found = self._found(content, summed, training)
        mean = found.mean
        if mean is None:
            raise CannotTrain("nobody in the sum has any examples")
        by_subject = {who: node for node, who in self._nodes.items()}
        # Strategies that compare replies get each group's; the others what came of all.
        means = found.each if self._each_group and training else (mean,) * len(summed.groups)
        replies: list[dict[str, Any]] = []
        got: list[bytes] = []
        for group, own in zip(summed.groups, means, strict=True):
            if own is None:
                replies += [
                    {"node": by_subject[who], "body": -1, "why": "its group's sum isn't used"}
                    for who in group.members
                ]
                continue
            count = len(group.members) if self._each_group else len(summed.members)
            body = records.encode(replying.reply_of(own, content, run.weight, count))
            got += [body] if body not in got else []
            replies += [{"node": by_subject[who], "body": got.index(body)} for who in group.members]
        missing = [node for node, who in self._nodes.items() if node in asked and who not in summed.members]
        replies += [{"node": node, "body": -1, "why": "it dropped out"} for node in missing]
        told = self._told(number, type_, group_, message, summed, found)
        if self._evaluates and training and told.groups:
            told = await self._worths(process, told, content, found)
        self._rounds.append(told)
        metrics = {name.partition(vector.JOIN)[2]: value for name, value in mean.metrics.items()}
        self._history.append({"round": group_ or number, "where": "vaults", "type": type_, **metrics})
        self._tell(
            {
                "event": "summed",
                "number": number,
                "type": type_,
                "vaults": len(summed.members),
                "dropped": summed.dropped,
                "metrics": metrics,
                "length": mean.length,
                "epsilon": self._epsilon(),
                "charged_wei": self._charged(),
            }
        )
        self._consider(told)
        return replies, got, told

    async def _worths(
        self, process: ServerProcess, told: lineage.Told, content: records.Records, found: grouping.Judged
    ) -> lineage.Told:
        """With what the app's evaluation says of each group whose sum was used."""
        groups: list[Group] = []
        number = int(told.group) if told.group.isdecimal() else told.number
        for group, own in zip(told.groups, found.each, strict=True):
            probes = [records.encode(it) for it in worth.probes(content, found.mean, own)]
            if probes:
                await process.say({"op": "probe", "round": number}, probes)
                head, _ = await process.hear()
                if head.get("op") != "worth":
                    raise AppFailed("the ServerApp's process doesn't say what models are worth")
                group = msgspec.structs.replace(group, worth=worth.worth(head["metrics"]))
            groups.append(group)
        return msgspec.structs.replace(told, groups=tuple(groups))

    def _found(self, content: records.Records, summed: Sum, training: bool) -> grouping.Judged:
        run, metrics = self._run, next(iter(summed.dones.values())).metrics
        counts = [len(group.members) for group in summed.groups]
        bounds = [self._longest(content, count) for count in counts]
        if run.groups == 1:
            clip = bounds[0] if training else 0.0
            mean = vector.mean_of(
                content, summed.total, step=self._step(), training=training, metrics=metrics, clip=clip
            )
            return grouping.Judged(mean, ("",), (), (mean,))
        return grouping.judged(
            content,
            [group.total for group in summed.groups],
            [count * run.blocks for count in counts],
            step=self._step(),
            training=training,
            metrics=metrics,
            bounds=bounds,
            rule=self._wish.rule,
        )

    def _consider(self, told: lineage.Told) -> None:
        """Go on without those whom the groups' sums speak against, as far as a third of all may be missing."""
        # Who cheats in training may evaluate honestly: groups of an evaluation would clear it, and blame who sat beside it.
        if not told.groups or not told.type.startswith("train"):
            return
        subjects = {bytes(it.member): it.subject for it in self._sources.values()}
        self._evidence.saw(
            [
                msgspec.structs.replace(it, members=tuple(self._member(who) for who in it.members))
                for it in told.groups
            ],
            told.products,
        )
        for member, why in self._evidence.named().items():
            who = Digest(subjects[member])
            if who in self._named or len(self._parties) - len(self._named) <= self._run.quorum:
                continue
            self._named[who] = lineage.Named(who, self._sources[who].name, told.number, why)
            self._tell({"event": "named", "vault": self._sources[who].name, "why": why})

    def _member(self, subject: bytes) -> bytes:
        return self._sources[Digest(subject)].member

    def _set_out(
        self, message: bytes, type_: str, group: str, among: list[Digest], *, resumed: bool
    ) -> Underway:
        """The round that this exchange is asked for by: where it was under way when this broke off, the very same.

        Raises:
            CannotTrain: there is no money left for it.
        """
        asked = (self._exchanged, bytes(canonical.content_digest(message)), type_, group)
        before = self._checkpoint.underway() if resumed else None
        if before is not None and (
            *(before.exchange, before.message, before.type, before.group),
            before.among,
        ) == (*asked, tuple(bytes(who) for who in among)):
            return before
        left = None if self._wish.max_price_wei is None else self._wish.max_price_wei - self._charged()
        if left is not None and left <= 0:
            raise CannotTrain(f"the price of {self._wish.max_price_wei} is spent: raise --max-price to go on")
        number = self._number
        self._number += 1
        self._save_run(self._run)
        way = Underway(asked[0], number, *asked[1:], tuple(bytes(who) for who in among), left)
        self._checkpoint.set_out(way)
        return way

    def _step(self) -> float:
        run = self._run
        if run.noise_milli:
            return privacy.step_of(run.norm, run.noise_milli, run.shares)
        return run.norm / vector.LEVELS

    def _most_micro(self, content: records.Records) -> int:
        """What a first round costs; later ones cost less, and a vault that was started anew counts from one again."""
        run, layout = self._run, vector.layout_of(content)
        if not run.noise_milli or layout is None:
            return 0
        multiplier = privacy.widened(run.noise_milli, layout.size, run.shares)
        return privacy.epsilon_micro(multiplier, 1, run.delta_pico)

    def _longest(self, content: records.Records, clients: int) -> float:
        """The longest mean that honest vaults can make: the bound, and the noise with its tail."""
        run = self._run
        layout = vector.layout_of(content)
        size = layout.size if layout is not None else 1
        if not run.noise_milli:
            return float(run.norm * (1 + 1e-6) + self._step() * np.sqrt(size) / 2)
        deviation = privacy.SHARE_STEPS * self._step() * np.sqrt(clients) / (clients * run.blocks)
        return float(run.norm + deviation * (np.sqrt(size) + 6))

    def _told(
        self, number: int, type_: str, group: str, message: bytes, summed: Sum, found: grouping.Judged
    ) -> lineage.Told:
        several = self._run.groups > 1
        groups = tuple(
            Group(tuple(bytes(who) for who in it.members), it.transcript, verdict)
            for it, verdict in zip(summed.groups, found.verdicts, strict=True)
        )
        return lineage.Told(
            number,
            type_,
            group,
            canonical.content_digest(message),
            summed.parts,
            summed.members,
            summed.dropped,
            b"" if several else summed.groups[0].transcript,
            b"",
            groups if several else (),
            found.products,
        )

    def _restore(self, kept: dict[str, Any]) -> None:
        if kept.get("told") is not None:
            told = msgspec.convert(kept["told"], lineage.Told)
            self._rounds.append(told)
            self._consider(told)

    def _round_done(self, head: dict[str, Any], blobs: list[bytes]) -> None:
        if not blobs:
            return
        found = records.decode(blobs[0])
        self._model = canonical.content_digest(blobs[0])
        arrays: dict[str, Any] = {
            name: np.asarray(item) for _, items in found.values() for name, item in items.items()
        }
        about = {
            "clusterai.format": "clusterai-lineage/1",
            "clusterai.model": hex0x(self._model),
            "clusterai.run": hex0x(self._run.digest),
            "clusterai.app": hex0x(self._run.app),
            "clusterai.round": str(head["round"]),
        }
        if why := save_model(self._folder, arrays, about):
            self._tell({"event": "notice", "why": why})
        if self._rounds:
            self._rounds[-1] = msgspec.structs.replace(self._rounds[-1], model=self._model)
        self._write_card()
        self._tell({"event": "round", "round": head["round"], "metrics": head["metrics"]})

    # --- what is told ---

    def _charged(self) -> int:
        return sum(part.charged_wei for part in self._parts())

    def _epsilon(self) -> float:
        spent: dict[bytes, int] = {}
        for part in self._parts():
            spent[part.subject] = spent.get(part.subject, 0) + part.epsilon_micro
        return max(spent.values(), default=0) / MICRO

    def _parts(self) -> list[lineage.Part]:
        return [*(part for told in self._rounds for part in told.parts), *self._lost()]

    def _lost(self) -> list[lineage.Part]:
        """Of rounds without a sum, each once: one that failed may have been asked for again after a kill, and not have failed."""
        summed = {part.order for told in self._rounds for part in told.parts}
        return list({part.order: part for part in self._wasted if part.order not in summed}.values())

    def _write_card(self) -> dict[str, Any]:
        card = lineage.card(
            self._run,
            [self._sources[Digest(party.subject)] for party in self._parties],
            self._rounds,
            strategy=self._strategy,
            flower=FLOWER,
            model=self._model,
            wasted=self._lost(),
            rule=self._wish.rule if self._run.groups > 1 else "mean",
            named=list(self._named.values()),
        )
        _write(self._folder / "lineage.json", json.dumps(card, indent=1).encode())
        return card

    def _tell(self, event: dict[str, Any]) -> None:
        self._told_user(event)


def _unpacked(raw: bytes) -> tuple[dict[str, Any], list[bytes]]:
    (length,) = struct.unpack(">I", raw[:4])
    head, sizes = pipe.head_of(raw[4 : 4 + length])
    blobs: list[bytes] = []
    at = 4 + length
    for size in sizes:
        blobs.append(raw[at : at + size])
        at += size
    return head, blobs
