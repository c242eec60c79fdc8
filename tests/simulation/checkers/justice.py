"""No verdict without evidence, and the honest are never slashed.

A conviction must name a receipt that is really wrong (`Truth` decides, not the validators), or a demand that stood
unanswered to its deadline. An honest provider may miss a deadline only if it was cut off: the network promises its
stake to those who could reach the chain for `PROMISED_S` in one piece while the demand stood.
"""

from typing import Any

from clusterai.ledger.core import calls, events
from clusterai.ledger.core.calls import Submit
from clusterai.ledger.core.rules import Rules
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.statements import EPOCH_LIST, Outcome
from clusterai.runtime.simulator import Blockchain, Process
from clusterai.validator.core.words import Keep
from tests.simulation.checkers.blocks import OfBlocks, require
from tests.simulation.checkers.truth import Truth

PROMISED_S = 30
"""In which an answer can be seen, submitted, lost twice and mined."""

Place = tuple[Address, int, int]
"""(provider, epoch, index)"""


class Demand:
    """An open challenge, and for how long its provider could have answered."""

    __slots__ = ("answered", "begun", "best_s", "deadline_s", "finish_s", "since_s")

    def __init__(self, deadline_s: int, finish_s: int) -> None:
        self.deadline_s = deadline_s
        self.finish_s = finish_s
        self.begun = False
        self.answered = False
        self.since_s = -1
        self.best_s = 0

    @property
    def closes_s(self) -> int:
        """Who began to answer in time has until `finish_s`."""
        return self.finish_s if self.begun else self.deadline_s


class JusticeDone(OfBlocks):
    """Judges the judges.

    Args:
        processes: of providers, by address.
        villains: addresses that may be convicted.
    """

    def __init__(
        self,
        chain: Blockchain,
        rules: Rules,
        truth: Truth,
        processes: dict[Address, Process],
        villains: dict[Address, str],
    ) -> None:
        self._rules = rules
        self._truth = truth
        self._processes = processes
        self._villains = villains
        self._kept: dict[Address, set[Digest]] = {}
        self._reached: dict[int, frozenset[Address]] = {}
        """at each block's time, as it was mined: who could reach the chain. Blocks that are read again, because others were
        undone, are judged by what was, not by who happens to be there now."""
        self.convicted: dict[Address, str] = {}
        super().__init__(chain)

    def reset(self) -> None:
        self.demands: dict[Place, Demand] = {}
        self.voted: dict[Place, dict[Address, tuple[int, Digest]]] = {}
        self.convicted.clear()
        self._slashed: dict[Address, None] = {}
        """honest owners whose slash wasn't explained yet"""

    # --- what validators do ---

    def stepped(self, process: Process, event: Any, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Keep(evidence):
                    self._kept.setdefault(process.address, set()).add(evidence)
                case Submit(_, calls.Vote(verdict)) if process.address not in self._villains:
                    if verdict.outcome == Outcome.FRAUD:
                        kept = self._kept.get(process.address, ())
                        has = verdict.index == EPOCH_LIST or verdict.evidence in kept
                        require(has, "no vote without evidence", process.name, verdict)
                        self._is_fraud(Address(verdict.provider), verdict.index, Digest(verdict.leaf))
                case _:
                    pass

    # --- what the chain shows ---

    def event(self, event: Any, timestamp_s: int) -> None:
        match event:
            case events.Challenged(_, provider, epoch, index, deadline_s, finish_s):
                self.demands[provider, epoch, index] = Demand(deadline_s, finish_s)
            case events.AnswerPart(provider, epoch, index):
                demand = self.demands[provider, epoch, index]
                require(timestamp_s <= demand.closes_s, "a part that counts is in time", provider, index)
                demand.begun = True
            case events.ChallengeAnswered(provider, epoch, index):
                self.demands[provider, epoch, index].answered = True
            case events.Voted(validator, provider, epoch, index, outcome, evidence):
                votes = self.voted.setdefault((provider, epoch, index), {})
                require(validator not in votes, "a validator votes once on one receipt", validator, index)
                votes[validator] = (outcome, evidence)
            case events.Convicted(provider, epoch, index, outcome, evidence):
                self._convicted((provider, epoch, index), outcome, evidence, timestamp_s)
            case events.Slashed(owner) if owner not in self._villains:
                self._slashed[owner] = None
            case events.Equivocated(validator):
                require(
                    validator in self._villains, "honest validators never contradict themselves", validator
                )
            case _:
                pass

    def block(self, timestamp_s: int) -> None:
        """Note who can reach the chain now."""
        require(not self._slashed, "the honest are never slashed", *self._slashed)
        reached = self._who_reached(timestamp_s)
        for (provider, _, _), demand in self.demands.items():
            if demand.answered or timestamp_s > demand.closes_s:
                continue
            if provider not in reached:
                demand.since_s = -1
            elif demand.since_s < 0:
                demand.since_s = timestamp_s
            else:
                demand.best_s = max(demand.best_s, timestamp_s - demand.since_s)

    def _who_reached(self, timestamp_s: int) -> frozenset[Address]:
        if not self._reached or timestamp_s > max(self._reached):
            self._reached[timestamp_s] = frozenset(
                address
                for address, process in self._processes.items()
                if process.machine is not None and not self.chain.is_away(process)
            )
        # A block that took another's place may bear a time at which nobody looked.
        return self._reached[
            max((it for it in self._reached if it <= timestamp_s), default=min(self._reached))
        ]

    def _convicted(self, place: Place, outcome: int, evidence: Digest, timestamp_s: int) -> None:
        provider, epoch, index = place
        self.convicted[provider] = f"{Outcome(outcome).name.lower()} of epoch {epoch}, index {index}"
        agreeing = [v for v, vote in self.voted.get(place, {}).items() if vote == (outcome, evidence)]
        require(bool(agreeing), "a conviction follows votes", provider, epoch, index)
        if outcome == Outcome.WITHHELD:
            demand = self.demands.get(place)
            if demand is None or demand.answered or timestamp_s <= demand.closes_s:
                require(False, "withheld is what was demanded, unanswered, past its deadline", *place)
            elif provider not in self._villains:
                require(
                    demand.best_s < PROMISED_S, "who could answer is not convicted", provider, demand.best_s
                )
                self._slashed.pop(provider, None)
        else:
            require(outcome == Outcome.FRAUD, "a conviction is for fraud or withholding", outcome)
            require(provider in self._villains, "the honest are never convicted of fraud", *place)

    def _is_fraud(self, provider: Address, index: int, leaf: Digest) -> None:
        """The receipt is wrong; or it looked wrong by a near tie, after others that are wrong: the test is sequential."""
        require(provider in self._villains, "honest validators don't accuse the honest", provider, index)
        receipt = self._truth.receipts.get(leaf)
        if index == EPOCH_LIST or receipt is None or self._truth.wrong(receipt) is not None:
            return
        others = [it for it in self._truth.receipts.values() if it.provider == provider]
        require(any(map(self._truth.wrong, others)), "what is called fraud is wrong", provider, index)
