"""Which run this is: a new one that its vaults are asked about, or the one that a folder holds, as it was begun.

A run that goes on has the vaults, keys, grants and groups that it began with. Anything else is another run, and is told apart by name.
"""

import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from clusterai.protocol.ids import Address, Digest
from clusterai.vault.core.secagg.robust import Rule
from clusterai.work.training.adapters.checkpoint import Kept, run_of
from clusterai.work.training.adapters.parties import GONE, Party, ask
from clusterai.work.training.core import lineage, privacy
from clusterai.work.training.spec import MICRO, Hello, Hi, Run

FLOWER = "1.41.0"
WEIGHT = "num-examples"
GREET_S = 30.0


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


class CannotTrain(RuntimeError):
    """This run can't be done: {why}."""


class Agreement:
    """The vaults of one run, as they say who they are."""

    def __init__(self, parties: Sequence[Party], tell: Callable[[dict[str, Any]], None]) -> None:
        self._parties, self._tell = parties, tell
        self.sources: dict[Digest, lineage.Source] = {}

    async def begin(self, wish: Wish, app: Digest, requester: Address) -> Run:
        """
        Raises:
            CannotTrain: a vault can't be reached, or has another Flower.
        """
        for party in self._parties:
            self.sources[Digest(party.subject)] = _source(party, await _greeted(party))
        members = tuple(self.sources[Digest(party.subject)].member for party in self._parties)
        return self._wished(wish, secrets.token_bytes(32), app, requester, members)

    def _wished(
        self, wish: Wish, nonce: bytes, app: Digest, requester: Address, members: tuple[bytes, ...]
    ) -> Run:
        noise = 0
        if wish.epsilon is not None:
            spare = 1 if wish.rounds > 1 else 0
            noise = int(1000 * privacy.multiplier_for(wish.epsilon, wish.rounds + spare, wish.delta)) + 2
            # Rounding on the grid widens what one person can change; 1% more noise covers 10^7 parameters.
            noise += noise // 100 + 1
        return Run(
            nonce,
            app,
            requester,
            json.dumps(wish.config).encode() if wish.config else b"",
            WEIGHT,
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

    async def take_up(self, kept: Kept, wish: Wish, app: Digest, requester: Address, folder: Path) -> Run:
        """The run as it was. A vault that is away just now has dropped out, as in any round.

        Raises:
            CannotTrain: the folder holds another run.
        """
        run = run_of(kept)
        self.sources = {Digest(it.subject): it for it in kept.sources}
        if run.app != app:
            raise CannotTrain(f"{folder} holds a run of another app: name another folder")
        if run.subjects != tuple(bytes(party.subject) for party in self._parties):
            had = ", ".join(it.name for it in kept.sources)
            raise CannotTrain(f"{folder} holds a run with other vaults ({had}): name another folder")
        wished = self._wished(wish, run.nonce, app, requester, run.members)
        other = [said for field, said in SETTINGS.items() if getattr(run, field) != getattr(wished, field)]
        if other:
            raise CannotTrain(
                f"{folder} holds a run with other settings ({', '.join(other)}): give it those, or name another folder (--out)"
            )
        for party in self._parties:
            began = self.sources[Digest(party.subject)]
            try:
                now = _source(party, await _greeted(party))
            except CannotTrain as error:
                self._tell({"event": "dropped", "vault": party.name, "why": str(error)[:300]})
                continue
            if now.member != began.member:
                raise CannotTrain(
                    f"{party.name} signs by another key than when {folder} was begun: name another folder"
                )
            if now.snapshot != began.snapshot:
                why = "its rows are another version than when this run began: the card tells the first"
                self._tell({"event": "notice", "why": f"{party.name}: {why}"})
            # What it says of who it is may have been signed anew; all else is as it was.
            self.sources[Digest(party.subject)] = msgspec.structs.replace(began, membership=now.membership)
        return run


async def _greeted(party: Party) -> Hi:
    """
    Raises:
        CannotTrain.
    """
    try:
        hi = await ask(party, Hello(), Hi, GREET_S)
    except GONE as error:
        raise CannotTrain(f"{party.name} can't be reached: {error}") from None
    if hi.flower != FLOWER:
        raise CannotTrain(f"{party.name} has Flower {hi.flower}; this is {FLOWER}")
    return hi


def _source(party: Party, hi: Hi) -> lineage.Source:
    return lineage.Source(
        party.name, hi.dataset, hi.snapshot, party.subject, hi.member, party.grant, membership=hi.membership
    )


__all__ = ["FLOWER", "WEIGHT", "Agreement", "CannotTrain", "Wish"]
