"""A validator of the simulated network: the Auditor, and an engine that draws answers again.

No two engines agree on every token: a near tie falls the other way about once in `ODDS` tokens, differently at each
validator. The weights of the sequential test are those of such an engine against one that errs thirty times as often.
"""

import math
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from clusterai.ledger.core.calls import Submit, Vote
from clusterai.market.core.directory import Directory
from clusterai.protocol.ids import Digest, Role
from clusterai.protocol.statements import court_domain
from clusterai.runtime.simulator import Process
from clusterai.runtime.simulator.blocks import Mined
from clusterai.validator.core.auditor import Auditor, Settings
from clusterai.validator.core.words import Check, Checked, Forget, Keep, Noted, Overheard
from clusterai.work.inference import KIND, decode_generation
from clusterai.work.kind import Findings
from tests.simulation.world import engine
from tests.simulation.world.chain import ADDRESSES, CHAIN_ID
from tests.simulation.world.gateways import NETWORK
from tests.simulation.world.parties import Party, recover

if TYPE_CHECKING:
    from tests.simulation.world.world import World

COURT = court_domain(CHAIN_ID, ADDRESSES.court)
ODDS = 200
_HONEST, _FRAUD = 1 / 100, 3 / 10
MATCH_MILLI = round(1000 * math.log((1 - _FRAUD) / (1 - _HONEST)))
MISS_MILLI = round(1000 * math.log(_FRAUD / _HONEST))
FAR_MILLI = 20_000
"""A token that was nowhere near winning: no arithmetic explains it."""

CHECK_US = (20_000, 2_000_000)
READ_US = 50_000


def seal(to: bytes, plain: bytes) -> bytes:
    """Stands for a sealed box: only who knows `to` may look inside, and our machines keep to that."""
    return to + plain


class Validator:
    """Host of one validator's process.

    Attributes:
        evidence: files by digest; they outlive crashes.
        notes: what it said, for people and for scenarios.
    """

    def __init__(self, world: "World", party: Party) -> None:
        self.world = world
        self.party = party
        self.seal_to = Digest(blake3(b"seal to " + party.address).digest())
        self.evidence: dict[Digest, Keep] = {}
        self.notes: list[Noted] = []
        self.process: Process = world.simulation.spawn(party.name, party.address, self.build, self)
        world.chain.watchers.append(self.witness)
        for gateway in world.gateways:
            gateway.host(self, Role.VALIDATOR)

    @property
    def directory(self) -> Directory | None:
        return getattr(self.process.machine, "directory", None)

    def build(self) -> Any:
        settings = Settings(
            me=self.party.address,
            seal_to=self.seal_to,
            network=NETWORK,
            court=COURT,
            rules=self.world.rules,
            confirmations=1 + self.world.simulation.faults_drawn.reorganised_blocks,
        )
        return Auditor(settings, {KIND.name: KIND}, self.party.hot.sign, recover, self.unseal)

    def unseal(self, sealed: bytes) -> bytes | None:
        return sealed[32:] if sealed[:32] == self.seal_to else None

    # --- host ---

    def started(self) -> None:
        self.world.chain.follow(self.process)

    def witness(self, block: Mined) -> None:
        """Read the data of a block's transactions, unless the chain is away; failed ones stand there as well."""
        if self.process.machine is None or self.world.chain.is_away(self.process):
            return
        for transaction in block.transactions:
            if isinstance(transaction.call, Vote):
                self.process.post(READ_US, Overheard(transaction.call.verdict, transaction.call.signature))

    def crashed(self) -> None: ...

    def perform(self, effect: Any) -> None:
        match effect:
            case Submit(key, call):
                self.world.chain.submit(self.process, self.party.hot.address, key, call)
            case Check():
                checked = Checked(
                    effect.provider, effect.epoch, effect.index, effect.leaf, self.findings(effect)
                )
                tokens = len(effect.transcript.answer.tokens)
                self.process.post(CHECK_US[0] + tokens * 1_000, checked)
            case Keep(evidence):
                self.evidence[evidence] = effect
            case Forget():
                pass
            case Noted():
                self.notes.append(effect)
            case _:
                raise AssertionError(f"a validator doesn't do {effect!r}")

    def findings(self, check: Check) -> Findings:
        """Draw the answer again."""
        generation = decode_generation(check.transcript.request)
        answer = check.transcript.answer
        whole, _ = engine.answer(
            generation.model, generation.prompt, generation.sampling.seed, generation.max_tokens
        )
        first = len(generation.so_far)
        seconds = engine.runners_up(
            generation.model, generation.prompt, generation.sampling.seed, generation.max_tokens
        )
        ties = blake3(self.party.address + check.leaf).digest(len(answer.tokens))
        matches = weight_milli = 0
        for at, token in enumerate(answer.tokens):
            position = first + at
            if position < len(whole) and token == whole[position] and ties[at] % ODDS:
                matches += 1
                weight_milli += MATCH_MILLI
            elif position < len(whole) and token in (whole[position], seconds[position]):
                weight_milli += MISS_MILLI
            else:
                weight_milli += FAR_MILLI
        return Findings(len(answer.tokens), matches, weight_milli, 0)
