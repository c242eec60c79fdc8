"""A vault's book between requesters, an owner and a chain, all played by the test, which can kill it between any two effects.

What it was heard to say is kept here, outside of it, and `check` compares: a checker that shares no code with the book.
"""

from typing import Any

import msgspec

from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Address, Digest
from clusterai.protocol.signing import Key
from clusterai.protocol.statements import network_domain
from clusterai.protocol.vaults import Grant, Operation, SignedUse, dataset_id, log_root
from clusterai.runtime.machine import Save, Started, Tick
from clusterai.sdk.identity import Identity
from clusterai.vault.core.book import VaultBook
from clusterai.vault.core.policy import MICRO, Policy
from clusterai.vault.core.terms import (
    Anchor,
    Anchored,
    Approve,
    AskedFor,
    Close,
    Confirmed,
    Entry,
    Gave,
    Issue,
    No,
    Rekey,
    Rekeyed,
    Revoke,
    Spend,
    Spent,
    Terms,
    Withdraw,
    Withdrawn,
)

OWNER = Address(b"O" * 20)
HOT = Key(b"h" * 32)
NETWORK = network_domain(31415, Address(b"R" * 20))
DATASET = dataset_id(OWNER, "wards")
START_S = 1_800_000_000
ALICE, BOB = Identity(Key(b"a" * 32), b"A" * 32), Identity(Key(b"b" * 32), b"B" * 32)
POLICY = Policy(
    operations=(Operation.QUERY, Operation.CODE),
    grant_epsilon_micro=2 * MICRO,
    requester_epsilon_micro=3 * MICRO,
    total_epsilon_micro=4 * MICRO,
    total_delta_pico=1_000,
    auto_operations=(Operation.QUERY,),
    auto_epsilon_micro=MICRO // 2,
)
RESULT = Digest(b"r" * 32)


class Crash(Exception):
    """The process died between two effects."""


class World:
    """
    Attributes:
        chain: grants on chain; True where they stand, False once they ended.
        told: what the book has acknowledged: spends by order, signed uses by index.
        crash_after: how many effects may still happen.
    """

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.journal: list[bytes] = []
        self.now_s = float(START_S)
        self.chain: dict[Digest, bool] = {}
        self.anchors: list[Anchor] = []
        self.keys = 0
        self.spent: dict[Digest, Spent] = {}
        self.signed: dict[int, SignedUse] = {}
        self.crash_after: int | None = None
        self.effects = 0
        self.start()

    def start(self) -> None:
        self.book = VaultBook(Terms(DATASET, OWNER, NETWORK, HOT.sign, self.policy))
        decoder = msgspec.msgpack.Decoder(self.book.RECORDS)
        self.book.restore(decoder.decode(record) for record in self.journal)
        self.step(Started())

    def restart(self) -> None:
        """As the daemon: restore, start, then hear from the chain what it knows."""
        self.crash_after = None
        self.start()
        for grant, stands in list(self.chain.items()):
            self.step(Confirmed(grant) if stands else Withdrawn(grant, 2))
        if self.anchors:
            self.step(Anchored(self.anchors[-1].count, self.anchors[-1].as_of_s))

    def compact(self) -> None:
        self.journal = [canonical.encode(record) for record in self.book.snapshot()]

    def step(self, event: Any) -> Any:
        """What the caller is given; what the world does in answer comes back as steps of its own."""
        given: Any = None
        follow: list[Any] = []
        for effect in self.book.step(event, self.now_s):
            if self.crash_after is not None:
                if self.crash_after == 0:
                    raise Crash
                self.crash_after -= 1
            self.effects += 1
            match effect:
                case Save(record):
                    self.journal.append(canonical.encode(record))
                case Issue(grant):
                    follow += self._issued(grant)
                case Withdraw(grant, reason):
                    self.chain[grant] = False
                    follow.append(Withdrawn(grant, reason))
                case Anchor():
                    self.anchors.append(effect)
                    follow.append(Anchored(effect.count, effect.as_of_s))
                case Rekey(epoch):
                    self.keys = epoch
                    follow.append(Rekeyed(epoch))
                case Gave(value):
                    given = effect
                    self._heard(value)
                case No():
                    given = effect
                case _:
                    raise AssertionError(effect)
        for event_ in follow:
            self.step(event_)
        return given

    def _issued(self, grant: Grant) -> list[Any]:
        """The chain takes a grant once, and not again when it has ended."""
        if self.chain.setdefault(grant.struct(), True):
            return [Confirmed(grant.struct())]
        return []

    def _heard(self, value: Any) -> None:
        if isinstance(value, Spent):
            assert self.spent.setdefault(value.order, value).epsilon_micro == value.epsilon_micro
        if isinstance(value, SignedUse):
            known = self.signed.setdefault(value.use.index, value)
            assert known == value, "two signed uses with one index"

    # --- what people do ---

    def ask(
        self, who: Identity, epsilon_micro: int = MICRO, uses: int = 100, salt: int = 0, **changes: Any
    ) -> Any:
        purpose = "to count"
        signed = who.request(
            DATASET,
            NETWORK,
            changes.pop("operation", Operation.QUERY),
            purpose,
            epsilon_micro,
            uses,
            0,
            START_S + 86_400,
            nonce=Digest(salt.to_bytes(32)),
            **changes,
        )
        return self.step(AskedFor(signed, purpose, changes.get("code", b"")))

    def grant(self, who: Identity, epsilon_micro: int = MICRO, **changes: Any) -> Digest:
        asked = self.ask(who, epsilon_micro, **changes)
        assert isinstance(asked, Gave), asked
        entry: Entry = asked.value
        given = self.step(Approve(entry.request))
        assert isinstance(given, Gave), given
        found = self.book.entries[entry.request].grant
        assert found is not None
        return found

    def spend(self, grant: Digest, order: int, epsilon_micro: int, delta_pico: int = 0) -> Any:
        return self.step(Spend(grant, Digest(order.to_bytes(32)), epsilon_micro, delta_pico))

    def close(self, order: int, result: Digest = RESULT) -> Any:
        return self.step(Close(Digest(order.to_bytes(32)), result))

    def revoke(self, grant: Digest) -> Any:
        return self.step(Revoke(grant, 2))

    def chain_ends(self, grant: Digest, reason: int) -> None:
        """Somebody else ended it there: its holder, or the owner's cold key."""
        self.chain[grant] = False
        self.step(Withdrawn(grant, reason))

    def tick(self, seconds: float = 1.0) -> None:
        self.now_s += seconds
        self.step(Tick())

    # --- the checker ---

    def check(self) -> None:
        """No budget is exceeded, nothing acknowledged is lost, and the log is the sum of what was spent."""
        rows = self.book.uses()
        by_order = {row.order: row for row in rows}
        for order, spent in self.spent.items():
            assert by_order[order].epsilon_micro == spent.epsilon_micro, "an acknowledged spend is lost"
        assert sum(row.epsilon_micro for row in rows) <= self.policy.total_epsilon_micro
        assert sum(row.delta_pico for row in rows) <= self.policy.total_delta_pico
        for who in {row.requester for row in rows}:
            theirs = sum(row.epsilon_micro for row in rows if row.requester == who)
            assert theirs <= self.policy.requester_epsilon_micro
        for entry in self.book.entries.values():
            if entry.grant is not None:
                theirs_rows = [row for row in rows if row.grant == entry.grant]
                assert sum(row.epsilon_micro for row in theirs_rows) <= entry.signed.request.epsilon_micro
                assert len(theirs_rows) <= entry.signed.request.uses
        self._check_log()
        for grant, stands in self.chain.items():
            entry = self.book.entry_of(grant)
            assert entry is not None, "a grant on chain that the book doesn't know"
            # The chain says nothing of a grant whose time is over.
            assert entry.state == "expired" or stands == (entry.state == "granted"), entry.state
        assert self.keys == self.book.key_epoch

    def _check_log(self) -> None:
        closed = sorted(
            (row.signed for row in self.book.uses() if row.signed is not None),
            key=lambda it: it.use.index,
        )
        assert [it.use.index for it in closed] == list(range(len(closed))), "the log has a gap"
        total, by_grant, at_s = 0, dict[bytes, int](), 0
        for it in closed:
            assert it.signed_by(HOT.address, NETWORK)
            total += it.use.epsilon_micro
            by_grant[it.use.grant] = by_grant.get(it.use.grant, 0) + it.use.epsilon_micro
            assert (it.use.total_spent_micro, it.use.grant_spent_micro) == (total, by_grant[it.use.grant])
            assert it.use.at_s >= at_s
            at_s = it.use.at_s
        leaves = [it.use.struct() for it in closed]
        for index, said in self.signed.items():
            assert closed[index] == said, "a signed use isn't in the log any more"
        for anchor in self.anchors:
            assert log_root(leaves[: anchor.count]) == anchor.root, "what was anchored was rewritten"
            assert all(it.use.at_s >= anchor.as_of_s for it in closed[anchor.count :])

    def open_orders(self) -> list[Digest]:
        return [row.order for row in self.book.uses() if row.signed is None]


NOTHING = ZERO_DIGEST
