"""The claim book as transcripts: vouchers in, claims and settlements out, the chain played by the test."""

from typing import Any

import msgspec
import pytest

from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Claim, Mined, Reverted, Settle, Submit
from clusterai.ledger.core.claims import RETRY_S, ChannelMet, ClaimBook, Terms, Vouched
from clusterai.ledger.core.projection import Projection, TooDeep
from clusterai.protocol import canonical
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.signing import Key, recover
from clusterai.protocol.statements import ChannelConfig, Voucher, channels_domain, signing_digest
from clusterai.runtime.machine import Save, Tick

ME = Address(b"me" * 10)
PAYER = Address(b"payer" * 4)
TOKEN = Address(b"toke" * 5)
PAYER_HOT = Key(b"p" * 32)
CHANNELS = channels_domain(31415, Address(b"C" * 20))
WINDOW_S = 60
START_S = 6_000
TX = Digest(b"t" * 32)


def config(payer: Address = PAYER, salt: bytes = b"s" * 32, **changes: Any) -> ChannelConfig:
    plain = ChannelConfig(payer, PAYER_HOT.address, ME, ME, TOKEN, 900, salt)
    return msgspec.structs.replace(plain, **changes)


def channel_id(it: ChannelConfig) -> Digest:
    return it.channel_id(CHANNELS)


def signed(
    it: ChannelConfig, amount_wei: int, key: Key = PAYER_HOT, domain: Domain = CHANNELS
) -> tuple[Voucher, bytes]:
    voucher = Voucher(channel_id(it), amount_wei)
    return voucher, key.sign(signing_digest(voucher, domain))


class Book:
    """Steps a claim book with its projection, journals its records, and can kill it."""

    def __init__(self) -> None:
        self.journal: list[bytes] = []
        self.now_s = float(START_S)
        self.block = 0
        self.seen: list[Any] = []
        self.start()

    def start(self) -> None:
        self.chain = Projection()
        terms = Terms(ME, (ME,), TOKEN, CHANNELS, WINDOW_S, recover, least_claim_wei=10, claim_every_s=0.0)
        self.book = ClaimBook(terms, self.chain)
        decoder = msgspec.msgpack.Decoder(self.book.RECORDS)
        self.book.restore([decoder.decode(record) for record in self.journal])

    def crash(self) -> None:
        """Restart from the journal, and read the chain from its beginning."""
        self.start()
        for event in self.seen:
            self.tell(event)

    def step(self, event: Any) -> list[Any]:
        effects = list(self.book.step(event, self.now_s))
        self.journal += [canonical.encode(effect.record) for effect in effects if isinstance(effect, Save)]
        return [effect for effect in effects if not isinstance(effect, Save)]

    def vouch(self, it: ChannelConfig, amount_wei: int) -> None:
        voucher, signature = signed(it, amount_wei)
        assert self.book.refuse_voucher(Address(it.payer), voucher, signature) is None
        self.step(Vouched(voucher.channel_id, amount_wei, signature))

    def mine(self, *happened: Any, seconds: float = 2) -> None:
        """A block with these events."""
        self.now_s += seconds
        self.block += 1
        for event in (*happened, events.Block(self.block, int(self.now_s))):
            self.seen.append(event)
            self.tell(event)

    def tell(self, event: Any) -> None:
        assert self.book.step(event, self.now_s) == []
        if isinstance(event, events.Block | events.RolledBack):
            self.chain.apply(event, self.now_s)

    def tick(self) -> list[Any]:
        return self.step(Tick())

    def claims(self) -> list[tuple[Digest, int]]:
        """What one tick claims: (channel, new total)."""
        return [
            (channel_id(row.config), row.total_claimed)
            for effect in self.tick()
            if isinstance(effect, Submit) and isinstance(effect.call, Claim)
            for row in effect.call.claims
        ]


def deposited(it: ChannelConfig, balance: int) -> events.Deposited:
    return events.Deposited(channel_id(it), Address(it.payer), ME, balance, balance)


def committed(epoch: int, total: int) -> events.EpochCommitted:
    return events.EpochCommitted(ME, epoch, TX, 1, total, epoch + 1, 1_000_000)


def claimed(it: ChannelConfig, amount: int, total: int, window: int) -> events.Claimed:
    return events.Claimed(channel_id(it), ME, amount, total, window)


def funded(balance: int = 1_000, committed_wei: int = 0) -> Book:
    """A book with one channel, deposited, and so much committed."""
    book = Book()
    book.step(ChannelMet(config()))
    book.mine(deposited(config(), balance))
    if committed_wei:
        book.mine(committed(1, committed_wei))
    return book


def test_nothing_is_claimed_before_it_is_committed() -> None:
    """A voucher waits for the commitment that covers it, and is then claimed as far as that goes."""
    book = funded()
    book.vouch(config(), 300)
    assert book.tick() == []
    book.mine(committed(1, 200))
    assert book.claims() == [(channel_id(config()), 200)]


def test_a_claim_is_asked_for_once_while_it_is_in_flight() -> None:
    """The second claim waits until the first is mined and its events have come."""
    book = funded(committed_wei=500)
    book.vouch(config(), 100)
    assert len(book.claims()) == 1
    book.vouch(config(), 200)
    assert book.claims() == []
    book.step(Mined("claim", TX, book.block + 1))
    assert book.claims() == []
    book.mine(claimed(config(), 100, 100, START_S // WINDOW_S))
    assert book.claims() == [(channel_id(config()), 200)]


def test_only_the_newest_voucher_counts() -> None:
    """A late, lower voucher changes nothing and isn't journaled."""
    book = funded(committed_wei=500)
    book.vouch(config(), 200)
    size = len(book.journal)
    book.vouch(config(), 150)
    assert len(book.journal) == size
    assert book.claims() == [(channel_id(config()), 200)]


def test_a_claim_stays_within_the_deposit() -> None:
    """What a voucher promises beyond the channel's balance can't be claimed."""
    book = funded(balance=120, committed_wei=500)
    book.vouch(config(), 300)
    assert book.claims() == [(channel_id(config()), 120)]


def test_dust_waits_unless_the_payer_withdraws() -> None:
    """Less than the least claim isn't worth the gas, until the money is about to leave; that channel is first."""
    other = config(salt=b"o" * 32)
    book = funded(committed_wei=100)
    book.step(ChannelMet(other))
    book.mine(deposited(other, 1_000))
    book.vouch(other, 100)
    book.vouch(config(), 9)
    book.mine(events.WithdrawInitiated(channel_id(config()), 991, START_S + 900))
    assert book.claims() == [(channel_id(config()), 9), (channel_id(other), 91)]


def test_matured_claims_are_settled_once() -> None:
    """What was claimed in window k is settled when window k + 2 has begun, not before."""
    book = funded(committed_wei=500)
    book.vouch(config(), 100)
    book.claims()
    window = int(book.now_s) // WINDOW_S
    book.step(Mined("claim", TX, book.block + 1))
    book.mine(claimed(config(), 100, 100, window))
    assert book.tick() == []
    book.mine(seconds=(window + 2) * WINDOW_S - book.now_s)
    assert book.tick() == []
    book.mine(seconds=3)
    assert book.tick() == [Submit("settle", Settle(ME, TOKEN))]
    assert book.tick() == []
    book.step(Mined("settle", TX, book.block + 1))
    book.mine(events.Settled(ME, TOKEN, ME, 100))
    assert book.tick() == []


def test_a_claim_during_the_hold_leaves_the_older_to_mature() -> None:
    """Each window's claims mature by themselves."""
    book = funded(committed_wei=500)
    window = START_S // WINDOW_S
    book.mine(claimed(config(), 100, 100, window))
    book.mine(claimed(config(), 50, 150, window + 2), seconds=2 * WINDOW_S + 3)
    assert [effect.key for effect in book.tick()] == ["settle"]
    book.step(Mined("settle", TX, book.block + 1))
    book.mine(events.Settled(ME, TOKEN, ME, 100))
    assert book.tick() == []


def test_a_revert_is_tried_again_later() -> None:
    """A refused claim isn't repeated at once."""
    book = funded(committed_wei=500)
    book.vouch(config(), 100)
    assert book.claims()
    book.step(Reverted("claim", "ExceedsCommitted"))
    assert book.claims() == []
    book.now_s += RETRY_S
    assert book.claims()


def test_outcomes_of_others_are_passed_over() -> None:
    """Mined and reverted calls that aren't ours change nothing."""
    book = funded(committed_wei=500)
    book.vouch(config(), 100)
    book.step(Reverted("claim", "an answer from before the crash"))
    book.step(Mined("commit:7", TX, 3))
    assert book.claims()


def test_a_crash_forgets_nothing_that_was_promised() -> None:
    """After a restart at any moment the newest voucher is claimed, and only what is still due."""
    book = funded(committed_wei=500)
    book.vouch(config(), 100)
    book.crash()
    assert book.claims() == [(channel_id(config()), 100)]
    book.crash()
    assert book.claims() == [(channel_id(config()), 100)]
    book.mine(claimed(config(), 100, 100, START_S // WINDOW_S))
    book.crash()
    assert book.claims() == []


def test_a_snapshot_restores_to_the_same_book() -> None:
    """Compaction loses no channel and no newest voucher."""
    book = funded(committed_wei=500)
    book.vouch(config(), 100)
    book.vouch(config(), 200)
    book.journal = [canonical.encode(record) for record in book.book.snapshot()]
    assert len(book.journal) == 2
    book.crash()
    assert book.claims() == [(channel_id(config()), 200)]


def test_undone_blocks_take_their_events_back() -> None:
    """A claim whose block is undone is due again; so is the commitment that allowed it."""
    book = funded()
    book.vouch(config(), 100)
    book.mine(committed(1, 500))
    before = book.block
    book.claims()
    book.step(Mined("claim", TX, book.block + 1))
    book.mine(claimed(config(), 100, 100, START_S // WINDOW_S))
    assert book.claims() == []
    book.seen.append(events.RolledBack(before))
    book.tell(events.RolledBack(before))
    assert book.claims() == [(channel_id(config()), 100)]
    book.step(Mined("claim", TX, book.block + 1))
    book.tell(events.RolledBack(before - 1))
    book.mine()
    assert book.claims() == []


def test_a_rollback_below_the_undo_log_asks_for_a_fresh_read() -> None:
    """What can't be undone is never guessed."""
    book = funded()
    for number in range(600):
        book.mine(deposited(config(), 1_000 + number))
    with pytest.raises(TooDeep):
        book.tell(events.RolledBack(1))


def test_a_barred_receiver_claims_nothing() -> None:
    """After a conviction there is nothing to ask the chain for."""
    book = funded(committed_wei=500)
    book.vouch(config(), 100)
    book.mine(claimed(config(), 40, 40, START_S // WINDOW_S), events.Barred(ME))
    assert book.tick() == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"payer": Address(b"x" * 20)}, "payer is somebody else"),
        ({"receiver": PAYER}, "doesn't pay us"),
        ({"receiver_authorizer": PAYER}, "authorizer isn't ours"),
        ({"token": PAYER}, "another token"),
        ({"withdraw_delay_s": 899}, "could withdraw"),
    ],
)
def test_a_channel_that_could_cheat_us_is_refused(changes: dict[str, Any], why: str) -> None:
    """A channel must pay us, in our token, and leave refunds and time to claim in our hands."""
    refused = Book().book.refuse_channel(PAYER, config(**changes))
    assert refused is not None
    assert why in refused


def test_a_payers_channels_are_bounded() -> None:
    """A payer can't fill our memory with channels; those known stay known."""
    book = Book()
    for number in range(16):
        it = config(salt=bytes((number,)) * 32)
        assert book.book.refuse_channel(PAYER, it) is None
        book.step(ChannelMet(it))
    assert "already has 16" in (book.book.refuse_channel(PAYER, config(salt=b"z" * 32)) or "")
    assert book.book.refuse_channel(PAYER, config(salt=bytes(32))) is None


def test_a_false_voucher_is_refused() -> None:
    """Another key, another chain, another channel, another payer, or noise: none of it is money."""
    book = funded()
    other_chain = channels_domain(1, Address(b"C" * 20))
    voucher, good = signed(config(), 100)
    assert book.book.refuse_voucher(PAYER, voucher, good) is None
    for signature in (
        signed(config(), 100, key=Key(b"x" * 32))[1],
        signed(config(), 100, domain=other_chain)[1],
        signed(config(), 101)[1],
        bytes(65),
    ):
        assert "not signed" in (book.book.refuse_voucher(PAYER, voucher, signature) or "")
    assert book.book.refuse_voucher(ME, voucher, good) == "unknown channel"
    assert book.book.refuse_voucher(PAYER, *signed(config(salt=b"z" * 32), 100)) == "unknown channel"


def test_a_channel_without_authorizer_is_signed_by_its_payer() -> None:
    """As x402 does it: where no authorizer is named, the payer's own key signs."""
    book = Book()
    payer = Key(b"q" * 32)
    it = config(payer.address, payer_authorizer=ZERO_ADDRESS)
    book.step(ChannelMet(it))
    assert book.book.refuse_voucher(payer.address, *signed(it, 5, key=payer)) is None
    assert book.book.refuse_voucher(payer.address, *signed(it, 5)) is not None


def test_refunds_and_withdrawals_lower_the_balance() -> None:
    """What went back to the payer can't be claimed."""
    book = funded(balance=1_000, committed_wei=5_000)
    book.vouch(config(), 900)
    book.mine(events.Refunded(channel_id(config()), 300), events.WithdrawFinalized(channel_id(config()), 200))
    assert book.claims() == [(channel_id(config()), 500)]


def test_many_channels_are_claimed_in_batches() -> None:
    """A claim has at most a hundred rows; the rest follows in the next."""
    book = Book()
    configs = [config(salt=number.to_bytes(32)) for number in range(130)]
    for it in configs:
        book.step(ChannelMet(it))
        book.vouch(it, 50)
    book.mine(committed(1, 10**6), *(deposited(it, 50) for it in configs))
    assert len(book.claims()) == 100
    book.step(Mined("claim", TX, book.block + 1))
    book.mine(*(claimed(it, 50, 50, START_S // WINDOW_S) for it in configs[:100]))
    assert len(book.claims()) == 30
