"""Random histories of vaults: twin and bytecode agree, no honest vault is convicted, and copies conserve money."""

from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from clusterai.ledger.core import calls
from clusterai.ledger.core.events import Event
from clusterai.ledger.core.licences import Licences
from clusterai.ledger.core.twin import Refused
from clusterai.ledger.core.twin.vaults import sale_id
from clusterai.ledger.core.vault_calls import Piece, Shown
from clusterai.protocol.ids import Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.vaults import Grant, Operation, Use, log_proof, name_digest
from tests.contracts.cast import AT, EVERYONE, HOTS, OWNERS
from tests.contracts.test_twins_equal_bytecode import run
from tests.contracts.vaultcast import VAULTS, WINDOW_S, Log, VaultPair, dataset, digest, grant, signed, terms

vaults = st.sampled_from(("ann", "bob"))
anybody = st.sampled_from(("ann hot", "ann", "bob hot", "payer", "stranger", "gate hot"))
some = st.integers(0, 9)
LIES: tuple[dict[str, Any], ...] = (
    {"grant_spent_micro": 0},
    {"total_spent_micro": 1},
    {"grant_spent_micro": 2_000_001},
    {"epsilon_micro": 7_000_000},
    {"grant": digest("never")},
)


class VaultHistories(RuleBasedStateMachine):
    """ann is honest whatever others do; bob lies now and then; anybody tries everything, with true and false proofs."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = VaultPair()
        self.licences = Licences()
        self.logs = {who: Log(who) for who in VAULTS}
        self.anchored: dict[str, list[list[Use]]] = {who: [] for who in VAULTS}
        self.said: dict[str, list[Use]] = {who: [] for who in VAULTS}
        self.grants: list[tuple[str, Grant]] = []
        self.sales: list[tuple[str, Grant, Key]] = []
        self.lied = False

    @initialize()
    def begin(self) -> None:
        self.pair.populate()
        for at, who in enumerate(VAULTS):
            self.do(calls.ListDataset(name_digest(VAULTS[who]), terms(2)), HOTS[who])
            self.grant(who, "payer", 1)
            self.use(at, 100_000, None)
            self.anchor(who)

    def do(self, call: calls.Call, who: Key) -> tuple[Event, ...] | Refused:
        outcome = self.pair.do(call, who)
        if not isinstance(outcome, Refused):
            for event in outcome:
                self.licences.apply(event)
        return outcome

    # --- what vaults do ---

    @rule(seconds=st.sampled_from((1, 30, WINDOW_S, 90_000)))
    def time_passes(self, seconds: int) -> None:
        self.pair.advance(seconds)

    @rule(who=vaults, requester=st.sampled_from(("payer", "stranger")), operation=st.integers(0, 7))
    def grant(self, who: str, requester: str, operation: int) -> None:
        until_s = self.pair.now_s + (50 if operation == 4 else 10**6)
        made = grant(who, requester, f"wish {len(self.grants)}", expires_s=until_s, operation=operation)
        if not isinstance(self.do(calls.GrantAccess(made, operation in (5, 6)), HOTS[who]), Refused):
            self.grants.append((who, made))

    @rule(which=some, who=anybody, reason=st.integers(0, 7))
    def end(self, which: int, who: str, reason: int) -> None:
        _, made = self.grants[which % len(self.grants)]
        self.do(calls.EndGrant(made.struct(), reason), EVERYONE[who])

    @rule(which=some, epsilon=st.integers(0, 400_000), lie=st.sampled_from((None, None, *LIES)))
    def use(self, which: int, epsilon: int, lie: dict[str, Any] | None) -> None:
        """ann spends what is granted and no more; bob writes what he likes."""
        who, made = self.grants[which % len(self.grants)]
        log = self.logs[who]
        spent = sum(one.epsilon_micro for one in log.uses if one.grant == made.struct())
        total = sum(one.epsilon_micro for one in log.uses)
        over = spent + epsilon > made.epsilon_micro or total + epsilon > terms().budget_micro
        if who == "ann" and over:
            return
        lies = lie if who == "bob" and lie is not None else {}
        self.lied |= bool(lies) or over
        written = msgspec.structs.replace(log.use(made, epsilon, self.pair.now_s), **lies)
        log.uses[-1] = written
        self.said[who].append(written)

    @rule(who=vaults)
    def anchor(self, who: str) -> None:
        log = self.logs[who]
        if not isinstance(self.do(log.anchor(self.pair.now_s), HOTS[who]), Refused):
            self.anchored[who].append(list(log.uses))

    @rule(which=some, what=st.sampled_from(("forgets", "changes", "signs twice")))
    def bob_betrays(self, which: int, what: str) -> None:
        log = self.logs["bob"]
        if not log.uses:
            return
        self.lied = True
        at = which % len(log.uses)
        changed = msgspec.structs.replace(log.uses[at], result=digest("changed"))
        if what == "signs twice":
            self.said["bob"].append(changed)
        elif what == "changes":
            log.uses[at] = changed
        else:
            log.uses.pop()

    # --- what accusers do ---

    def leaves(self, who: str, number: int) -> list[Digest]:
        return [one.struct() for one in self.anchored[who][number]]

    def piece(self, who: str, number: int, index: int) -> Piece:
        leaves = self.leaves(who, number)
        index %= len(leaves)
        return Piece(number, leaves[index], log_proof(leaves, index))

    @rule(who=vaults, number=some, first=some, second=some, alone=st.booleans())
    def accuse_by_the_log(self, who: str, number: int, first: int, second: int, alone: bool) -> None:
        many = len(self.anchored[who])
        if not many:
            return
        shown: list[Shown] = []
        for index in (first, second):
            piece = self.piece(who, number % many, index)
            use = self.anchored[who][number % many][index % len(self.anchored[who][number % many])]
            shown.append(Shown(use, piece.anchor, piece.proof))
        call = calls.ProveSpending(shown[0]) if alone else calls.ProveSums(shown[0], shown[1])
        self.do(call, EVERYONE["stranger"])

    @rule(
        who=vaults,
        signer=st.sampled_from(("own", "own", "gate")),
        first=some,
        second=some,
        number=some,
        kind=st.integers(0, 2),
    )
    def accuse_by_what_was_said(
        self, who: str, signer: str, first: int, second: int, number: int, kind: int
    ) -> None:
        said, many = self.said[who], len(self.anchored[who])
        if not said or not many:
            return
        key = HOTS[who] if signer == "own" else HOTS["gate"]
        one, other = said[first % len(said)], said[second % len(said)]
        piece = self.piece(who, number % many, one.index)
        if kind == 0:
            call: calls.Call = calls.ProveEquivocation(one, signed(one, key), other, signed(other, key))
        elif kind == 1:
            call = calls.ProveOmission(one, signed(one, key), piece)
        else:
            later = self.piece(who, second % many, one.index)
            call = calls.ProveRewriting(dataset(who), one.index, piece, later)
        self.do(call, EVERYONE["stranger"])

    # --- copies ---

    @rule(who=vaults, wait_s=st.integers(0, 50))
    def buy(self, who: str, wait_s: int) -> None:
        wanted = grant(who, "stranger", f"copy {len(self.sales)}", operation=int(Operation.COPY))
        call = calls.BuyCopy(
            dataset(who), Digest(wanted.request), EVERYONE["stranger"].address, 700, self.pair.now_s + wait_s
        )
        if not isinstance(self.do(call, EVERYONE["payer"]), Refused):
            self.sales.append((who, wanted, EVERYONE["payer"]))

    @rule(which=some)
    def deliver(self, which: int) -> None:
        if self.sales:
            who, wanted, payer = self.sales[which % len(self.sales)]
            self.do(calls.DeliverCopy(payer.address, wanted), HOTS[who])

    @rule(which=some, by=anybody, reason=st.integers(0, 3))
    def end_copy(self, which: int, by: str, reason: int) -> None:
        if self.sales:
            _, wanted, _ = self.sales[which % len(self.sales)]
            self.do(calls.EndGrant(wanted.struct(), reason), EVERYONE[by])

    @rule(which=some, by=anybody)
    def close(self, which: int, by: str) -> None:
        if self.sales:
            who, wanted, payer = self.sales[which % len(self.sales)]
            requester = EVERYONE["stranger"].address
            self.do(
                calls.CloseSale(sale_id(dataset(who), Digest(wanted.request), requester, payer.address)),
                EVERYONE[by],
            )

    # --- what holds ---

    @invariant()
    def honest_vaults_keep_their_stake(self) -> None:
        if not self.grants:
            return
        barred = self.pair.twin.registry.participant(OWNERS["ann"].address).barred
        assert not barred, "ann never lied"
        assert self.lied or not self.pair.twin.registry.participant(OWNERS["bob"].address).barred
        held = sum(
            700
            for who, wanted, payer in self.sales
            if self.pair.twin.vaults.sale(
                sale_id(dataset(who), Digest(wanted.request), EVERYONE["stranger"].address, payer.address)
            ).state
            in (1, 2)
        )
        assert self.pair.twin.token.balance(AT.vaults) == held

    def teardown(self) -> None:
        if not self.grants:
            return
        self.pair.compare_vaults()
        for _, made in self.grants:
            for who in ("payer", "stranger"):
                key = EVERYONE[who].address
                said = self.licences.may_use(made.struct(), key, self.pair.now_s)
                assert said == self.pair.twin.vaults.is_live(made.struct(), key, self.pair.now_s)


def test_twin_and_bytecode_of_vaults_agree_over_random_histories() -> None:
    """Outcomes, events and state are equal, projections follow, and who never lied is never convicted."""
    run(VaultHistories, examples=12, steps=40)
