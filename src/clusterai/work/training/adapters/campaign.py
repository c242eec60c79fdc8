"""The requester's side of a run: the ServerApp, its rounds, the checkpoint, and the model with its lineage card.

    FOLDER/run.json          the run; with it, and `exchanges`, a run that broke off goes on. The round that was under way: `checkpoint`
    FOLDER/exchanges/0001    what the app was answered, in order: a run that is resumed answers these again, without any vault
    FOLDER/model.npz         after each round, and the same as model.safetensors
    FOLDER/lineage.json      after each round
    FOLDER/sums/0001-0       of each sum, by its round and group: what proves it (`train check`)

A resumed run starts the app anew, with the first run's parameters, and gives it the same answers; so strategies with a memory of their own
(FedAdam's moments) are where they were. Vaults aren't asked again. The round in which it broke off is asked for again with the same words, so that vaults
and gateway answer as they did: nothing is paid twice, and no ε is spent twice.
"""

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest, hex0x
from clusterai.protocol.signing import Key
from clusterai.work.training.adapters.agreement import FLOWER, Agreement, CannotTrain, Wish
from clusterai.work.training.adapters.checkpoint import Checkpoint, Kept, Underway
from clusterai.work.training.adapters.checkpoint import write as _write
from clusterai.work.training.adapters.packing import bundle_of
from clusterai.work.training.adapters.parties import GONE, Party
from clusterai.work.training.adapters.rounds import RoundFailed, Rounds, Sum
from clusterai.work.training.adapters.saving import NUMPY, save_model
from clusterai.work.training.adapters.serverapp import AppFailed, ServerProcess
from clusterai.work.training.core import grouping, lineage, measure, replying, strategies, vector, worth
from clusterai.work.training.core.account import Account
from clusterai.work.training.core.evidence import Evidence, Group
from clusterai.work.training.inside import pipe, records
from clusterai.work.training.spec import Run

MOST_TRIES = 3
"""Of one round: each that ends without a sum costs its ε again."""


class Outcome(msgspec.Struct, frozen=True):
    model: Path | None
    card: dict[str, Any]
    rounds: int
    epsilon: float
    charged_wei: int
    history: tuple[dict[str, Any], ...]
    named: tuple[lineage.Named, ...] = ()


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
        self._agreement = Agreement(self._parties, self._tell)
        self._account = Account()
        self._history: list[dict[str, Any]] = []
        self._strategy = ""
        self._evidence = Evidence()
        self._named: dict[Digest, lineage.Named] = {}
        self._each_group = self._evaluates = False
        self._model = b""
        self._replay: list[Path] = []
        self._number = 0
        self._exchanged = 0
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
            keep=self._keep_proof,
        )
        gone = await self._ways.begin(
            bundle.canonical(),
            [self._agreement.sources[Digest(it.subject)].membership for it in self._parties],
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
            len(self._account.rounds),
            card["privacy"]["epsilon"],
            card["charged_wei"],
            tuple(self._history),
            tuple(self._named.values()),
        )

    # --- the run ---

    async def _agree(self, app: Digest) -> Run:
        """The run as it was, or a new one."""
        kept = self._checkpoint.kept()
        if kept is None:
            run = await self._agreement.begin(self._wish, app, self._key.address)
            self._save_run(run)
            return run
        run = await self._agreement.take_up(kept, self._wish, app, self._key.address, self._folder)
        self._number, self._account.wasted = kept.number, list(kept.wasted)
        self._replay = sorted((self._folder / "exchanges").glob("[0-9]*"))
        return run

    def _save_run(self, run: Run) -> None:
        kept = Kept(
            canonical.encode(run).hex(),
            self._number,
            tuple(self._agreement.sources.values()),
            tuple(self._account.wasted),
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
        if head.get("weight") not in (None, "", self._run.weight):
            return f"the strategy weighs by {head['weight']!r}, vaults do by {self._run.weight!r}: let it do so too"
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
        least = worth.least_rounds(len(self._parties), self._run.groups)
        if self._evaluates and self._wish.rounds < least:
            why = f"{least} rounds are the least that tell what each of {len(self._parties)} vaults added: a pot for it can't be scored by {self._wish.rounds}"
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
                self._account.wasted += error.parts
                self._save_run(run)
                self._tell({"event": "failed", "number": number, "why": str(error)})
                if error.final or attempt + 1 == MOST_TRIES:
                    self._checkpoint.arrived()
                    raise CannotTrain(str(error)) from None
        else:
            raise AssertionError("it broke off, or raised")
        found = measure.found(
            run,
            self._wish.rule,
            content,
            [group.total for group in summed.groups],
            [len(group.members) for group in summed.groups],
            next(iter(summed.dones.values())).metrics,
            training=training,
        )
        mean = found.mean
        if mean is None:
            raise CannotTrain("nobody in the sum has any examples")
        # Strategies that compare replies get each group's; the others what came of all.
        each = self._each_group and training
        means = found.each if each else (mean,) * len(summed.groups)
        replies, got = replying.replies(
            content,
            run.weight,
            list(zip([group.members for group in summed.groups], means, strict=True)),
            {who: node for node, who in self._nodes.items()},
            asked,
            alone=self._each_group,
        )
        told = self._told(number, type_, group_, message, summed, found)
        if self._evaluates and training and told.groups:
            told = await self._worths(process, told, content, found)
        self._account.rounds.append(told)
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
                "epsilon": self._account.epsilon,
                "charged_wei": self._account.charged_wei,
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

    def _consider(self, told: lineage.Told) -> None:
        """Go on without those whom the groups' sums speak against, as far as a third of all may be missing."""
        # Who cheats in training may evaluate honestly: groups of an evaluation would clear it, and blame who sat beside it.
        if not told.groups or not told.type.startswith("train"):
            return
        subjects = {bytes(it.member): it.subject for it in self._agreement.sources.values()}
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
            self._named[who] = lineage.Named(who, self._agreement.sources[who].name, told.number, why)
            self._tell({"event": "named", "vault": self._agreement.sources[who].name, "why": why})

    def _member(self, subject: bytes) -> bytes:
        return self._agreement.sources[Digest(subject)].member

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
        left = (
            None if self._wish.max_price_wei is None else self._wish.max_price_wei - self._account.charged_wei
        )
        if left is not None and left <= 0:
            raise CannotTrain(f"the price of {self._wish.max_price_wei} is spent: raise --max-price to go on")
        number = self._number
        self._number += 1
        self._save_run(self._run)
        way = Underway(asked[0], number, *asked[1:], tuple(bytes(who) for who in among), left)
        self._checkpoint.set_out(way)
        return way

    def _most_micro(self, content: records.Records) -> int:
        return measure.most_micro(self._run, content)

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
            self._account.rounds.append(told)
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
        if self._account.rounds:
            self._account.rounds[-1] = msgspec.structs.replace(self._account.rounds[-1], model=self._model)
        self._write_card()
        self._tell({"event": "round", "round": head["round"], "metrics": head["metrics"]})

    # --- what is told ---

    def _write_card(self) -> dict[str, Any]:
        card = lineage.card(
            self._run,
            [self._agreement.sources[Digest(party.subject)] for party in self._parties],
            self._account.rounds,
            strategy=self._strategy,
            flower=FLOWER,
            model=self._model,
            wasted=self._account.lost(),
            rule=self._wish.rule if self._run.groups > 1 else "mean",
            named=list(self._named.values()),
        )
        _write(self._folder / "lineage.json", json.dumps(card, indent=1).encode())
        return card

    def _keep_proof(self, number: int, group: int, proof: bytes) -> None:
        place = self._folder / "sums"
        place.mkdir(exist_ok=True)
        _write(place / f"{number:04}-{group}", proof)

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


__all__ = ["Campaign", "CannotTrain", "Outcome", "Wish"]
