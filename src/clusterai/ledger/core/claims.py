"""The receiver's side of payment channels: keep the newest vouchers, claim them when allowed, settle what matured.

    voucher ──> Save ─────┐            claimed in window k         window k + 2
                          ├─> Submit(Claim) ────────────> held ────────────> Submit(Settle) ──> paid
    epoch committed ──────┘
    payer withdraws ──────> Submit(Claim) at once, as far as commitments allow

Only configs and vouchers are journaled; balances, claims and commitments are read from the chain at every start. So a
claim that was in flight at a crash is simply decided again, and repeating one changes nothing: totals are cumulative.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from clusterai.ledger.core import events
from clusterai.ledger.core.calls import Claim, Mined, Reverted, Settle, Submit, VoucherClaim
from clusterai.ledger.core.projection import Projection
from clusterai.protocol.eip712 import Domain, typed_digest
from clusterai.protocol.ids import ZERO_ADDRESS, Address, Digest
from clusterai.protocol.signing import BadSignature
from clusterai.protocol.statements import ChannelConfig, DigestBytes, SignatureBytes, Voucher, Wei
from clusterai.runtime.machine import Save, Tick

MOST_ROWS = 100
"""Rows of one claim: about two million gas."""
RETRY_S = 10.0
SETTLE_SLACK_S = 2
MOST_CHANNELS_PER_PAYER = 16


class Terms(msgspec.Struct, frozen=True):
    """Who is paid, by which contract, and when a claim is worth its gas.

    Attributes:
        receiver: the owner that channels must pay.
        authorizers: who may sign claims and refunds for the receiver: its own keys only, or the payer could be given
            back what it owes.
        least_claim_wei: below this, vouchers wait for more, unless the payer withdraws.
        least_delay_s: a payer that could withdraw sooner than this would outrun our claims.
        claim_every_s: least time between claims: all vouchers of an epoch in one, for one payment of gas.
        recover: (digest, signature) to the signing key; raises BadSignature.
    """

    receiver: Address
    authorizers: tuple[Address, ...]
    token: Address
    channels: Domain
    window_s: int
    recover: Callable[[Digest, bytes], Address]
    least_claim_wei: int = 1
    claim_every_s: float = 15.0
    least_delay_s: int = 900


class _Record(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True, array_like=True):
    pass


class ChannelMet(_Record, frozen=True):
    """A payer told the terms of its channel with us. Event and record."""

    config: ChannelConfig


class Vouched(_Record, frozen=True):
    """A payer's voucher, higher than all before. Event and record."""

    channel_id: DigestBytes
    amount_wei: Wei
    signature: SignatureBytes


Record = ChannelMet | Vouched


class OnChain(msgspec.Struct, frozen=True):
    """A channel as the chain knows it. `withdrawing`: its payer announced to take money back."""

    balance_wei: int = 0
    claimed_wei: int = 0
    withdrawing: bool = False


UNKNOWN = OnChain()


class ClaimBook:
    """One receiver's channels. See the module's docstring for how it lives; a `Machine`."""

    RECORDS = Record

    def __init__(self, terms: Terms, projection: Projection) -> None:
        """`projection` may be shared: whoever owns it applies `Block` and `RolledBack` to it."""
        self.terms = terms
        self.configs: dict[Digest, ChannelConfig] = {}
        self.vouchers: dict[Digest, Vouched] = {}
        self.chain = projection
        self._on_chain: dict[Digest, OnChain] = {}
        self._held: dict[int, int] = {}
        """window to what was claimed in it"""
        self._sums: dict[str, int] = {}
        self._pending: dict[str, int | None] = {}
        """intents in flight; a block number once mined, until the events of that block have come"""
        self._not_before_s: dict[str, float] = {}
        self._claimed_at_s = float("-inf")

    # --- what others ask ---

    def on_chain(self, channel_id: Digest) -> OnChain:
        return self._on_chain.get(channel_id, UNKNOWN)

    def vouched_wei(self, channel_id: Digest) -> int:
        voucher = self.vouchers.get(channel_id)
        return voucher.amount_wei if voucher else 0

    @property
    def barred(self) -> bool:
        return bool(self._sums.get("barred"))

    @property
    def committed_wei(self) -> int:
        return self._sums.get("committed", 0)

    @property
    def claimed_wei(self) -> int:
        return self._sums.get("claimed", 0)

    @property
    def settled_wei(self) -> int:
        return self._sums.get("settled", 0)

    def refuse_channel(self, payer: Address, config: ChannelConfig) -> str | None:
        """Why we don't take payment through this channel; None where we do."""
        if config.payer != payer:
            return "its payer is somebody else"
        if config.receiver != self.terms.receiver:
            return "it doesn't pay us"
        if config.receiver_authorizer not in self.terms.authorizers:
            return "its receiver authorizer isn't ours: it could refund what is owed to us"
        if config.token != self.terms.token:
            return "it pays in another token"
        if config.withdraw_delay_s < self.terms.least_delay_s:
            return f"its payer could withdraw within {config.withdraw_delay_s} s"
        known = [other for other in self.configs.values() if other.payer == payer]
        if config not in known and len(known) >= MOST_CHANNELS_PER_PAYER:
            return f"its payer already has {len(known)} channels with us"
        return None

    def refuse_voucher(self, payer: Address, voucher: Voucher, signature: bytes) -> str | None:
        """Why a voucher isn't good; None where it is, also when it isn't the newest."""
        config = self.configs.get(Digest(voucher.channel_id))
        if config is None or config.payer != payer:
            return "unknown channel"
        signer = config.payer if config.payer_authorizer == ZERO_ADDRESS else config.payer_authorizer
        digest = typed_digest(self.terms.channels.separator(), voucher.struct())
        try:
            signed = self.terms.recover(digest, signature) == signer
        except BadSignature:
            signed = False
        return None if signed else "not signed by the channel's payer, or for another chain"

    # --- machine ---

    def restore(self, records: Iterable[Any]) -> None:
        for record in records:
            self.apply(record)

    def snapshot(self) -> Sequence[msgspec.Struct]:
        return [*(ChannelMet(config) for config in self.configs.values()), *self.vouchers.values()]

    def apply(self, record: Record) -> None:
        match record:
            case ChannelMet(config):
                self.configs[config.channel_id(self.terms.channels)] = config
            case Vouched(channel_id, amount_wei):
                if amount_wei > self.vouched_wei(Digest(channel_id)):
                    self.vouchers[Digest(channel_id)] = record

    def step(self, event: Any, now_s: float) -> list[Any]:
        match event:
            case ChannelMet(config):
                known = config.channel_id(self.terms.channels) in self.configs
                return [] if known else self._save(event)
            case Vouched(channel_id, amount_wei):
                newer = amount_wei > self.vouched_wei(Digest(channel_id))
                return self._save(event) if newer else []
            case Tick():
                return [*self._claim(now_s), *self._settle(now_s)]
            case Mined(key, _, block):
                if key in self._pending:
                    self._pending[key] = block
            case Reverted(key):
                if self._pending.pop(key, _MISSING) is not _MISSING:
                    self._not_before_s[key] = now_s + RETRY_S
            case events.Block(number):
                for key, block in list(self._pending.items()):
                    if block is not None and block <= number:
                        del self._pending[key]
            case _:
                self._project(event)
        return []

    def _save(self, record: Record) -> list[Any]:
        self.apply(record)
        return [Save(record)]

    # --- from the chain ---

    def _project(self, event: Any) -> None:
        me = self.terms.receiver
        match event:
            case events.Deposited(channel_id, _, receiver, _, balance) if receiver == me:
                self._change(channel_id, balance_wei=balance)
            case events.Claimed(channel_id, receiver, amount, total_claimed, window) if receiver == me:
                self._change(channel_id, claimed_wei=total_claimed)
                self._add("claimed", amount)
                self.chain.put(self._held, window, self._held.get(window, 0) + amount)
            case events.Settled(receiver, token, _, amount) if receiver == me and token == self.terms.token:
                self._add("settled", amount)
            case events.EpochCommitted(provider, _, _, _, total) if provider == me:
                self._add("committed", total)
            case events.Barred(receiver) if receiver == me:
                self._add("barred", 1)
            case events.WithdrawInitiated(channel_id) if channel_id in self._on_chain:
                self._change(channel_id, withdrawing=True)
            case events.WithdrawFinalized(channel_id, amount) | events.Refunded(channel_id, amount) if (
                channel_id in self._on_chain
            ):
                balance_wei = self.on_chain(channel_id).balance_wei - amount
                self._change(channel_id, balance_wei=balance_wei, withdrawing=False)
            case events.Reclaimed(channel_id, _, total_claimed) if channel_id in self._on_chain:
                self._change(channel_id, claimed_wei=total_claimed)
            case _:
                pass

    def _change(self, channel_id: Digest, **changes: Any) -> None:
        self.chain.put(
            self._on_chain, channel_id, msgspec.structs.replace(self.on_chain(channel_id), **changes)
        )

    def _add(self, name: str, amount: int) -> None:
        self.chain.put(self._sums, name, self._sums.get(name, 0) + amount)

    # --- to the chain ---

    def _claim(self, now_s: float) -> list[Any]:
        hurry = any(self.on_chain(channel_id).withdrawing for channel_id in self.vouchers)
        early = not hurry and now_s < self._claimed_at_s + self.terms.claim_every_s
        if self.barred or early or not self._free("claim", now_s):
            return []
        room_wei = self.committed_wei - self.claimed_wei
        rows: list[VoucherClaim] = []
        # Those whose payer withdraws come first: what is left there is soon gone.
        by_need = sorted(
            self.vouchers.values(), key=lambda it: not self.on_chain(Digest(it.channel_id)).withdrawing
        )
        for voucher in by_need:
            channel = self.on_chain(Digest(voucher.channel_id))
            due_wei = min(voucher.amount_wei, channel.balance_wei) - channel.claimed_wei
            amount_wei = min(due_wei, room_wei)
            if amount_wei <= 0 or len(rows) == MOST_ROWS:
                continue
            if due_wei < self.terms.least_claim_wei and not channel.withdrawing:
                continue
            room_wei -= amount_wei
            config = self.configs[Digest(voucher.channel_id)]
            total_wei = channel.claimed_wei + amount_wei
            rows.append(VoucherClaim(config, voucher.amount_wei, voucher.signature, total_wei))
        if not rows:
            return []
        self._claimed_at_s = now_s
        return self._submit("claim", Claim(tuple(rows)))

    def _settle(self, now_s: float) -> list[Any]:
        # A little late on purpose: a settle mined just before the window begins pays nothing.
        window = int(self.chain.time_s(now_s) - SETTLE_SLACK_S) // self.terms.window_s
        held_wei = sum(amount for claimed_in, amount in self._held.items() if claimed_in + 2 > window)
        # A barred receiver's buckets stand still: what the chain still owes it, if anything, anyone can settle.
        if self.barred or self.claimed_wei - self.settled_wei - held_wei <= 0:
            return []
        if not self._free("settle", now_s):
            return []
        return self._submit("settle", Settle(self.terms.receiver, self.terms.token))

    def _free(self, key: str, now_s: float) -> bool:
        return key not in self._pending and now_s >= self._not_before_s.get(key, 0.0)

    def _submit(self, key: str, call: Claim | Settle) -> list[Any]:
        self._pending[key] = None
        return [Submit(key, call)]


_MISSING = object()
