"""Receipts by epoch: made, committed in order, opened to validators, forgotten.

    receipts of e | e is over: Committing fixes the list | mined | the next beacon draws | committed + window: Forget
                    `── root, count, total                        `── AskEpoch, Challenged: always answered

A receipt is promised to one epoch when its transcript is kept; that epoch isn't committed before the transcript is
durable, since a committed receipt that can't be opened costs the stake.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from clusterai.audit.core.draw import is_drawn
from clusterai.ledger.core import events
from clusterai.ledger.core.calls import AnswerChallenge, CommitEpoch, Mined, Reverted, Submit
from clusterai.ledger.core.projection import Projection
from clusterai.market.core.directory import Directory
from clusterai.node.core.leases import (
    Answered,
    Committing,
    Disputed,
    Forget,
    Forgot,
    Made,
    Noted,
    OpenEpoch,
    Prepare,
    Prepared,
    Record,
    Spent,
)
from clusterai.protocol import merkle
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest, Role
from clusterai.protocol.messages import AskEpoch
from clusterai.protocol.signing import BadSignature
from clusterai.protocol.statements import EPOCH_LIST
from clusterai.runtime.machine import Save

COMMIT_AFTER_S = 1
"""After an epoch's end: our clock and the chain's may differ a little."""
RETRY_S = 10.0
PARTS_AT_ONCE = 16
"""Parts of answers on their way: so many transactions of one sender any node holds."""
ASK_AGAIN_S = 0.5
"""A validator that asks for the same epoch more often than this is not answered: sealing costs us more than asking."""


class Committed(msgspec.Struct, frozen=True):
    """An epoch of ours as the chain has it. `round` numbers the beacon that draws."""

    root: Digest
    count: int
    round: int
    rate_ppm: int
    at_s: int | None = None
    beacon: Digest | None = None


class Demand(msgspec.Struct, frozen=True):
    """A challenge on chain, and which parts of the answer it shows: a bit each.

    Attributes:
        block: in which it was mined.
    """

    challenge: events.Challenged
    block: int
    received: int = 0

    @property
    def closes_s(self) -> int:
        """The last second in which a part counts."""
        return self.challenge.finish_s if self.received else self.challenge.deadline_s


class Epochs:
    """One provider's receipts. A part of the lease book: `apply` changes, the rest decides.

    Attributes:
        made: receipts by order, in the order they were made, of all epochs not yet forgotten.
        spent: orders with receipts in forgotten epochs, to their expiry.
    """

    def __init__(
        self,
        me: Address,
        network: Domain,
        recover: Callable[[Digest, bytes], Address],
        directory: Directory,
        chain: Projection,
        epoch_s: int,
        window_s: int,
        confirmations: int = 0,
    ) -> None:
        self._me = me
        self._network = network
        self._recover = recover
        self._directory = directory
        self._chain = chain
        self._epoch_s = epoch_s
        self._window_s = window_s
        self._confirmations = confirmations
        self.made: dict[Digest, Made] = {}
        self.by_epoch: dict[int, list[Digest]] = {}
        self.lists: dict[int, tuple[Digest, ...]] = {}
        """epochs whose commitment is fixed"""
        self.spent: dict[Digest, int] = {}
        self.forgotten = -1
        self._committed: dict[int, Committed] = {}
        """of epochs not yet forgotten"""
        self._newest: dict[str, int] = {}
        self._demands: dict[tuple[int, int], Demand | None] = {}
        """by epoch and index; None once answered"""
        self._answers: dict[tuple[int, int], tuple[bytes, ...]] = {}
        """packed, until the chain shows them or it is too late"""
        self._pending: dict[str, int | None] = {}
        self._not_before_s: dict[str, float] = {}
        self._asked_at_s: dict[tuple[Address, int, Address], float] = {}
        self._seal_to: dict[Address, bytes] = {}
        """each validator's newest key: what must go on chain while every gateway is away stays sealed"""

    # --- state ---

    def apply(self, record: Record) -> None:
        match record:
            case Made(receipt):
                order = Digest(receipt.order)
                self.made[order] = record
                self.by_epoch.setdefault(receipt.epoch, []).append(order)
            case Answered(order):
                self._mark(Digest(order), answered=True)
            case Disputed(order):
                self._mark(Digest(order), answered=True, disputed=True)
            case Committing(epoch, orders):
                self.lists[epoch] = tuple(Digest(order) for order in orders)
            case Forgot(epoch):
                self.forgotten = max(self.forgotten, epoch)
                for old in [it for it in self.by_epoch if it <= epoch]:
                    for order in self.by_epoch.pop(old):
                        self.spent[order] = self.made.pop(order).expires_s
                for old in [it for it in self.lists if it <= epoch]:
                    del self.lists[old]
                for old in [it for it in self._committed if it <= epoch]:
                    del self._committed[old]
                for place in [it for it in self._demands if it[0] <= epoch]:
                    del self._demands[place]
                    self._answers.pop(place, None)
            case Spent(order, expires_s):
                self.spent[Digest(order)] = expires_s
            case _:
                pass

    def snapshot(self) -> list[msgspec.Struct]:
        records: list[msgspec.Struct] = [Spent(order, expires_s) for order, expires_s in self.spent.items()]
        if self.forgotten >= 0:
            records.append(Forgot(self.forgotten))
        records.extend(self.made.values())
        records.extend(Committing(epoch, orders) for epoch, orders in self.lists.items())
        return records

    def epoch_of_next(self, now_s: float) -> int:
        """Where a receipt that is made now belongs: never in an epoch whose list is fixed, here or on the chain."""
        epoch = int(self._chain.time_s(now_s)) // self._epoch_s
        fixed = max(self.forgotten, self._newest.get("epoch", -1), max(self.lists, default=-1))
        return max(epoch, fixed + 1)

    def committed(self, epoch: int) -> Committed | None:
        return self._committed.get(epoch)

    def _mark(self, order: Digest, **changes: bool) -> None:
        made = self.made.get(order)
        if made is not None:
            self.made[order] = msgspec.structs.replace(made, **changes)

    def _save(self, record: Record) -> Save:
        self.apply(record)
        return Save(record)

    # --- from the chain ---

    def project(self, event: Any) -> None:
        """Take a chain event; acting on it waits for the next `tick`, so that a replay acts on nothing that is over."""
        match event:
            case events.EpochCommitted(provider, epoch, root, count) if provider == self._me:
                self._chain.put(self._newest, "epoch", epoch)
                if epoch > self.forgotten:
                    self._chain.put(
                        self._committed, epoch, Committed(root, count, event.round, event.rate_ppm)
                    )
            case events.BeaconRecorded(round_number, beacon):
                for epoch, it in list(self._committed.items()):
                    if it.round == round_number:
                        self._chain.put(self._committed, epoch, msgspec.structs.replace(it, beacon=beacon))
            case events.Challenged(_, provider, epoch, index) if (
                provider == self._me and epoch > self.forgotten
            ):
                self._chain.put(self._demands, (epoch, index), Demand(event, self._chain.block + 1))
                self._answers.pop((epoch, index), None)
            case events.AnswerPart(provider, epoch, index, part) if provider == self._me:
                demand = self._demands.get((epoch, index))
                if demand is not None:
                    shown = msgspec.structs.replace(demand, received=demand.received | 1 << part)
                    self._chain.put(self._demands, (epoch, index), shown)
            case events.ChallengeAnswered(provider, epoch, index) if provider == self._me:
                self._chain.put(self._demands, (epoch, index), None)
                self._answers.pop((epoch, index), None)
            case events.Block(number, timestamp_s):
                for epoch, it in list(self._committed.items()):
                    if it.at_s is None:
                        self._chain.put(self._committed, epoch, msgspec.structs.replace(it, at_s=timestamp_s))
                for key, block in list(self._pending.items()):
                    if block is not None and block <= number:
                        del self._pending[key]
            case _:
                pass

    def outcome(self, event: Mined | Reverted, now_s: float) -> list[Any]:
        if event.key not in self._pending:
            return []
        if isinstance(event, Mined):
            self._pending[event.key] = event.block
            return []
        del self._pending[event.key]
        self._not_before_s[event.key] = now_s + RETRY_S
        return [Noted("reverted", f"{event.key}: {event.reason}")]

    # --- what is due ---

    def tick(self, now_s: float, keeping: Callable[[int], bool], *, barred: bool) -> list[Any]:
        """
        Args:
            keeping: whether a receipt promised to this epoch waits for its transcript.
            barred: convicted: nothing more can be committed, but what was can still be asked for.
        """
        effects: list[Any] = []
        if not barred:
            effects += self._commit(now_s, keeping)
        effects += self._answer(now_s)
        effects += self._forget(now_s)
        return effects

    def _commit(self, now_s: float, keeping: Callable[[int], bool]) -> list[Any]:
        """The oldest epoch that is over and not on chain; one at a time, since the Court takes them in rising order."""
        newest = self._newest.get("epoch", -1)
        effects: list[Any] = []
        for epoch in sorted(self.by_epoch):
            if epoch in self._committed:
                continue
            if epoch < newest:
                continue  # passed over: another commitment of ours overtook it, and the Court takes no older one
            if self._chain.time_s(now_s) < (epoch + 1) * self._epoch_s + COMMIT_AFTER_S or keeping(epoch):
                return effects
            if epoch not in self.lists:
                orders = tuple(it for it in self.by_epoch[epoch] if not self.made[it].disputed)
                effects.append(self._save(Committing(epoch, orders)))
            orders = self.lists[epoch]
            if not orders:
                continue  # all disputed: nothing to commit, and the Court takes no empty epoch
            receipts = [self.made[order].receipt for order in orders]
            root = merkle.root([receipt.struct() for receipt in receipts])
            total_wei = sum(receipt.amount_wei for receipt in receipts)
            call = CommitEpoch(epoch, root, len(receipts), total_wei)
            return [*effects, *self._submit(f"commit:{epoch}", call, now_s)]
        return effects

    def _answer(self, now_s: float) -> list[Any]:
        effects: list[Any] = []
        for (epoch, index), demand in self._demands.items():
            # Not before a reorganisation can put another validator's challenge in the place of this one: the answer
            # would still be mined, and be unreadable to that validator, who must take it for fraud.
            if demand is None or self._chain.block < demand.block + self._confirmations:
                continue
            if self._chain.time_s(now_s) > demand.closes_s:
                self._answers.pop((epoch, index), None)
                continue
            orders = self.lists.get(epoch, ())
            if not orders or (index != EPOCH_LIST and index >= len(orders)):
                continue
            parts = self._answers.get((epoch, index))
            effects += (
                self._prepare(epoch, index, demand, now_s)
                if parts is None
                else self._give(epoch, index, demand, parts, now_s)
            )
        return effects

    def _prepare(self, epoch: int, index: int, demand: Demand, now_s: float) -> list[Any]:
        key = f"prepare:{epoch}:{index}"
        if not self._free(key, now_s):
            return []
        self._not_before_s[key] = now_s + RETRY_S
        orders = self.lists[epoch]
        return [
            Prepare(
                epoch,
                index,
                demand.challenge.validator,
                tuple(self.made[order].receipt for order in orders),
                None if index == EPOCH_LIST else orders[index],
                self._seal_to.get(demand.challenge.validator),
            )
        ]

    def prepared(self, event: Prepared, now_s: float) -> list[Any]:
        demand = self._demands.get((event.epoch, event.index))
        if not event.parts:
            return [
                Noted("unanswerable", f"receipt {event.index} of epoch {event.epoch} can't be shown on chain")
            ]
        if demand is None or demand.challenge.validator != event.validator:
            return []  # answered meanwhile, and maybe demanded by another, who couldn't read this one
        self._answers[event.epoch, event.index] = event.parts
        return self._give(event.epoch, event.index, demand, event.parts, now_s)

    def _give(
        self, epoch: int, index: int, demand: Demand, parts: tuple[bytes, ...], now_s: float
    ) -> list[Any]:
        """The parts that the chain doesn't show. What completes an answer costs more than the chain estimates before it
        is the last, so one waits until the others are mined."""
        missing = [part for part in range(len(parts)) if not demand.received >> part & 1]
        due = missing if len(missing) == 1 else missing[:-1]
        effects: list[Any] = []
        for part in due:
            key = f"answer:{epoch}:{index}:{part}"
            room = sum(it.startswith("answer:") for it in self._pending) < PARTS_AT_ONCE
            if room and self._free(key, now_s):
                self._pending[key] = None
                call = AnswerChallenge(self._me, epoch, index, part, len(parts), parts[part])
                effects.append(Submit(key, call))
        return effects

    def _forget(self, now_s: float) -> list[Any]:
        """Epochs from the oldest on, as long as nobody can ask for them: judged too late, or never to be committed."""
        effects: list[Any] = []
        head_s = self._chain.head_s
        newest = self._newest.get("epoch", -1)
        for epoch in sorted(self.by_epoch):
            committed = self._committed.get(epoch)
            if committed is None:
                empty = epoch in self.lists and not self.lists[epoch]
                over = empty or epoch < newest
            else:
                over = (
                    head_s is not None
                    and committed.at_s is not None
                    and head_s > committed.at_s + self._window_s
                )
            if not over:
                break
            effects += [self._save(Forgot(epoch)), Forget(epoch)]
            self._asked_at_s = {key: at for key, at in self._asked_at_s.items() if key[1] > epoch}
        time_s = self._chain.time_s(now_s)
        for order in [order for order, expires_s in self.spent.items() if expires_s < time_s]:
            del self.spent[order]
        return effects

    def _submit(self, key: str, call: CommitEpoch, now_s: float) -> list[Any]:
        if not self._free(key, now_s):
            return []
        self._pending[key] = None
        return [Submit(key, call)]

    def _free(self, key: str, now_s: float) -> bool:
        return key not in self._pending and now_s >= self._not_before_s.get(key, 0.0)

    # --- what validators ask ---

    def asked(self, gateway: Address, ask: AskEpoch, now_s: float) -> list[Any]:
        """Open an epoch to a registered validator; only what the beacon drew, whatever it asks for."""
        validator = Address(ask.validator)
        if ask.provider != self._me or not self._is_validators(ask, validator):
            return [Noted("stranger_asks", f"for epoch {ask.epoch}", validator)]
        committed = self._committed.get(ask.epoch)
        orders = self.lists.get(ask.epoch)
        if committed is None or not orders:
            return []
        asked = (validator, ask.epoch, gateway)
        if now_s < self._asked_at_s.get(asked, float("-inf")) + ASK_AGAIN_S:
            return []
        self._asked_at_s[asked] = now_s
        self._seal_to[validator] = ask.seal_to
        receipts = tuple(self.made[order].receipt for order in orders)
        signatures = tuple(self.made[order].signature for order in orders)
        drawn = tuple(
            (index, orders[index])
            for index in dict.fromkeys(ask.drawn)
            if index < len(orders) and self._drawn(ask.epoch, committed, index)
        )
        return [OpenEpoch(gateway, ask, receipts, signatures, drawn)]

    def _is_validators(self, ask: AskEpoch, validator: Address) -> bool:
        try:
            hot = self._recover(ask.signing_digest(self._network), ask.signature)
        except BadSignature:
            return False
        return self._directory.acts_for(hot, validator, Role.VALIDATOR)

    def _drawn(self, epoch: int, committed: Committed, index: int) -> bool:
        return committed.beacon is not None and is_drawn(
            committed.beacon, self._me, epoch, committed.root, index, committed.rate_ppm
        )
