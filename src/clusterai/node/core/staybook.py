"""The provider's book of its stay: the one cluster, if any, that this machine is a part of now.

    OpenStay ─> Raise ─> Raised: StayOpened ─> JoinStay ─> Join ─> Joined: StayReady ─> intervals are ordered …
        │                     │                                        │
     StayBroke          nobody joins it                       EndStay, over, unpaid, forsaken, Fell ─> Lower

Nothing here is durable: what a stay is made of dies with the daemon, and a gateway that finds it gone looks for another machine. A
stay costs its owner, so it ends by itself where nobody pays: no interval ordered for a while, its gateway out of reach, the booking over.

All frames are believed from the gateway that opened the stay, and from nobody else. An interval is begun only if it hangs on heartbeats that
came from here: what its gateway countersigned it can't leave out later.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from clusterai.node.core.leases import Drain, Paused
from clusterai.protocol.canonical import Malformed
from clusterai.protocol.eip712 import Domain
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.rentals import (
    Countersign,
    EndStay,
    Heartbeats,
    JoinStay,
    MeshKey,
    OpenStay,
    PauseStay,
    StayBroke,
    StayOpened,
    StayReady,
    TellPath,
    stay_model,
)
from clusterai.protocol.statements import U32, U40, AddressBytes, DigestBytes, SignatureBytes
from clusterai.protocol.units import show_duration
from clusterai.runtime.machine import Linked, Received, Send, Tick, Unlinked
from clusterai.work.cluster.price import unit_price_wei
from clusterai.work.cluster.spec import ClusterSpec, decode_spec

JOINED_WITHIN_S = 90.0
"""From the walls to the last member's key: a gateway waits for the slowest machine."""
UNPAID_S = 60.0
"""Ready, and nobody orders another interval."""
WAITED_S = 320.0
"""Ready, and nobody orders the first: a gateway waits for the others three minutes, or seeks a head for five."""
PAUSED_S = 920.0
"""In all of a stay, when its gateway asked it to stand still: fifteen minutes for an account to be filled."""
SHUNNED_S = 600.0
"""A gateway that left a stay unpaid gets no other for so long: opening one costs it nothing, and the owner a machine."""
MOST_SHUNNED = 256
FORSAKEN_S = 60.0
"""Its gateway's link is down: a restart takes seconds."""
CLOCKS_S = 60
"""A gateway's clock may be ahead of ours by so much, and what it books is still what was offered."""
MOST_PASSED_S = 5.0
"""From one tick to the next; more is a clock that was set, or a process that stood still."""
MOST_HEADS = 16
"""Intervals that came and aren't countersigned yet: each was one order, and is paid or isn't."""
SPARE_S = 30
"""After the booking's end, for the last interval."""


class StayTerms(msgspec.Struct, frozen=True):
    """What this machine lends.

    Attributes:
        node: its hot key, which is what renters were shown.
        price_wei: of an hour; less is refused.
        fits: why this spec can't be had here, or None.
        longest_s: nobody books it for longer ahead.
        sign: by the hot key.
        by_gateway: whether a digest's signature is by a key that acts for this gateway.
    """

    node: Address
    network: Domain
    price_wei: int
    fits: Callable[[ClusterSpec], str | None]
    longest_s: int
    sign: Callable[[Digest], bytes]
    by_gateway: Callable[[Digest, bytes, Address], bool]


# --- effects ---


class Raise(msgspec.Struct, frozen=True):
    """Build the walls; `Raised` or `Fell` comes back."""

    lease: Digest
    place: int
    generation: int
    spec: ClusterSpec


class Join(msgspec.Struct, frozen=True):
    """Into the mesh, and Ray up: `Joined` or `Fell` comes back. Where Ray comes up or is up, other peers alone."""

    generation: int
    frame: JoinStay


class Path(msgspec.Struct, frozen=True):
    frame: TellPath


class Still(msgspec.Struct, frozen=True):
    """Freeze what the tenant runs, or let it go on."""

    paused: bool


class Lower(msgspec.Struct, frozen=True):
    """Leave nothing behind; nothing comes back."""

    lease: Digest
    generation: int


class Lend(msgspec.Struct, frozen=True):
    """Take orders for this stay's intervals, from its gateway alone."""

    model: Digest
    gateway: Address
    unit_wei: int


class Withdraw(msgspec.Struct, frozen=True):
    model: Digest


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Keep this, in place of any before of the same stay: both sides signed that so much time was proven."""

    gateway: AddressBytes
    lease: DigestBytes
    place: U32
    generation: U32
    at_s: U40
    said: Heartbeats
    signature: SignatureBytes


class Vacant(msgspec.Struct, frozen=True):
    """Whether the machine may be offered again has changed."""

    vacant: bool


# --- events ---


class Raised(msgspec.Struct, frozen=True):
    lease: Digest
    generation: int
    key: bytes


class Joined(msgspec.Struct, frozen=True):
    lease: Digest
    generation: int
    steps: tuple[tuple[str, int], ...]


class Fell(msgspec.Struct, frozen=True):
    """It couldn't begin, or died. `code`: as in `StayBroke`."""

    lease: Digest
    generation: int
    code: str
    detail: str


class Worked(msgspec.Struct, frozen=True):
    """An interval of this model was ordered."""

    model: Digest


class Came(msgspec.Struct, frozen=True):
    """An interval's heartbeats, `tenths` of seconds, of which a receipt is made: what hung on `before` now hangs on `head`."""

    model: Digest
    before: bytes
    head: Digest
    tenths: int


class _Stay(msgspec.Struct):
    lease: Digest
    place: int
    generation: int
    gateway: Address
    spec: ClusterSpec
    unit_wei: int
    until_s: int
    phase: Literal["raising", "raised", "joining", "ready"]
    since_s: float
    paid_s: float
    opened: StayOpened | None = None
    ready: StayReady | None = None
    waiting: JoinStay | None = None
    """the newest, that came before there were walls"""
    joining: JoinStay | None = None
    """the newest that was acted on"""
    unlinked_s: float | None = None
    was_ordered: bool = False
    is_paused: bool = False
    paused_s: float = 0.0
    """in all, before the pause that is on"""
    heads: dict[bytes, int] = msgspec.field(default_factory=lambda: {bytes(32): 0})
    """what the next interval may hang on, the last that was countersigned first, and the tenths of seconds that each stands for"""

    @property
    def model(self) -> Digest:
        return stay_model(self.lease, self.place, self.generation)


class StayBook:
    """One machine. Steps like all machines, without a journal."""

    def __init__(self, terms: StayTerms) -> None:
        self.terms = terms
        self.stay: _Stay | None = None
        self._why_not: dict[str, str] = {}
        """why no new stay is taken: code to words"""
        self._now_s: float | None = None
        self._passed_s = 0.0
        """All waits are counted by it: a clock that is set neither ends a stay nor has a gateway shunned."""
        self._over: _Stay | None = None
        """the last one that ended: of its last interval we hear afterwards"""
        self._shunned: dict[Address, float] = {}
        """gateways that didn't pay, and when"""

    def step(self, event: Any, now_s: float) -> list[Any]:
        self._passed_s += min(max(0.0, now_s - (self._now_s or now_s)), MOST_PASSED_S)
        self._now_s = now_s
        match event:
            case Received(gateway, frame):
                return self._received(gateway, frame, now_s)
            case Raised():
                return self._raised(event)
            case Joined():
                return self._joined(event)
            case Fell():
                return self._fell(event)
            case Worked(model):
                if self.stay is not None and self.stay.model == model:
                    self.stay.paid_s, self.stay.was_ordered = self._passed_s, True
            case Came():
                self._came(event)
            case Linked(peer):
                return self._linked(peer)
            case Unlinked(peer):
                if self.stay is not None and self.stay.gateway == peer:
                    self.stay.unlinked_s = self._passed_s
            case Paused(why):
                self._closed("paused", why)
            case Drain():
                self._closed("shutting_down", "this provider shuts down")
            case Tick():
                return self._tick(now_s)
            case _:
                pass
        return []

    @property
    def is_vacant(self) -> bool:
        """Whether a new stay would be taken."""
        return self.stay is None and not self._why_not

    def _closed(self, code: str, why: str) -> None:
        if why:
            self._why_not[code] = why
        else:
            self._why_not.pop(code, None)

    # --- what gateways say ---

    def _received(self, gateway: Address, frame: msgspec.Struct, now_s: float) -> list[Any]:
        if isinstance(frame, OpenStay):
            return self._open(gateway, frame, now_s)
        if isinstance(frame, Countersign):
            return self._countersigned(gateway, frame, now_s)
        if not isinstance(frame, JoinStay | EndStay | PauseStay | TellPath):
            return []
        stay = self.stay
        if stay is None or stay.gateway != gateway or stay.lease != frame.lease:
            return []
        if isinstance(frame, TellPath):
            return [Path(frame)] if stay.phase in ("joining", "ready") else []
        if stay.generation != frame.generation:
            return []
        if isinstance(frame, EndStay):
            return self._end()
        if isinstance(frame, PauseStay):
            return self._pause(stay, frame.paused)
        if stay.phase == "raising":
            stay.waiting = frame
            return []
        if stay.phase == "joining" and frame == stay.joining:
            return []
        # Also while it joins: the relay that it was told of first may be gone with the gateway's last process.
        return self._join(stay, frame)

    def _open(self, gateway: Address, frame: OpenStay, now_s: float) -> list[Any]:
        lease, stay = Digest(frame.lease), self.stay
        if stay is not None and (stay.lease, stay.place, stay.generation, stay.gateway) == (
            lease,
            frame.place,
            frame.generation,
            gateway,
        ):
            # Told again, or extended. A booking never shrinks by it: that is what `EndStay` is for.
            stay.until_s = max(stay.until_s, min(frame.until_s, self._latest_s(now_s)))
            said = stay.ready or stay.opened
            return [] if said is None else [Send(gateway, said)]
        refusal = self._refusal(gateway, frame, now_s)
        if isinstance(refusal, tuple):
            return [Send(gateway, StayBroke(lease, frame.generation, *refusal))]
        self.stay = _Stay(
            lease,
            frame.place,
            frame.generation,
            gateway,
            refusal,
            unit_price_wei(frame.price_wei),
            frame.until_s,
            "raising",
            self._passed_s,
            self._passed_s,
        )
        return [Vacant(vacant=False), Raise(lease, frame.place, frame.generation, refusal)]

    def _refusal(self, gateway: Address, frame: OpenStay, now_s: float) -> ClusterSpec | tuple[str, str]:
        """The spec, or a code and words."""
        if now_s - self._shunned.get(gateway, -SHUNNED_S) < SHUNNED_S:
            return "unpaid", "this gateway left a stay here unpaid: ask again in ten minutes"
        if self.stay is not None:
            return "taken", "this machine is rented"
        for code, why in self._why_not.items():
            return code, why
        if frame.price_wei < self.terms.price_wei:
            return "price", f"{frame.price_wei} an hour are offered, the price is {self.terms.price_wei}"
        if not now_s < frame.until_s <= self._latest_s(now_s):
            return "spec", f"it can be rented for {show_duration(self.terms.longest_s)} at most"
        try:
            spec = decode_spec(frame.spec)
        except Malformed as error:
            return "spec", str(error)[:500]
        why = self.terms.fits(spec)
        return spec if why is None else ("spec", why)

    def _latest_s(self, now_s: float) -> int:
        """Gateways hold renters to what is offered; so that it can be booked whole, clocks may differ a little."""
        return int(now_s) + self.terms.longest_s + CLOCKS_S

    def _join(self, stay: _Stay, frame: JoinStay) -> list[Any]:
        if stay.phase == "raised":
            stay.phase = "joining"
        stay.joining = frame
        return [Join(stay.generation, frame)]

    def _pause(self, stay: _Stay, paused: bool) -> list[Any]:
        if stay.phase != "ready" or stay.is_paused == paused:
            return []
        if stay.is_paused:
            stay.paused_s += self._passed_s - stay.paid_s
        stay.is_paused, stay.paid_s = paused, self._passed_s
        return [Still(paused)]

    def _linked(self, peer: Address) -> list[Any]:
        stay = self.stay
        if stay is None or stay.gateway != peer:
            return []
        stay.unlinked_s = None
        said = stay.ready or stay.opened
        return [] if said is None else [Send(peer, said)]

    # --- what was done ---

    def follows(self, model: bytes, before: bytes) -> bool:
        """Whether an interval that hangs on `before` goes on from where this stay is."""
        return self.stay is not None and self.stay.model == model and before in self.stay.heads

    def _named(self, model: bytes) -> _Stay | None:
        return next((it for it in (self.stay, self._over) if it is not None and it.model == model), None)

    def _came(self, event: Came) -> None:
        stay = self._named(event.model)
        if stay is None or event.before not in stay.heads:
            return
        stay.heads[event.head] = stay.heads[event.before] + event.tenths
        for oldest in list(stay.heads)[:-MOST_HEADS]:
            del stay.heads[oldest]

    def _countersigned(self, gateway: Address, frame: Countersign, now_s: float) -> list[Any]:
        """What it leaves out, adds or signs with another's key isn't kept; what was left out it has to order anew."""
        said, stay = frame.said, self._named(frame.said.stay)
        if stay is None or stay.gateway != gateway or stay.heads.get(said.head) != said.tenths:
            return []
        if not self.terms.by_gateway(said.signing_digest(self.terms.network), frame.signature, gateway):
            return []
        heads = list(stay.heads)
        for earlier in heads[: heads.index(said.head)]:
            del stay.heads[earlier]
        return [Signed(gateway, stay.lease, stay.place, stay.generation, int(now_s), said, frame.signature)]

    # --- what hands report ---

    def _mine(self, lease: Digest, generation: int) -> _Stay | None:
        stay = self.stay
        return stay if stay is not None and (stay.lease, stay.generation) == (lease, generation) else None

    def _raised(self, event: Raised) -> list[Any]:
        stay = self._mine(event.lease, event.generation)
        if stay is None or stay.phase != "raising":
            return []
        stay.phase = "raised"
        said = MeshKey(stay.lease, stay.place, stay.generation, self.terms.node, event.key)
        signature = self.terms.sign(said.signing_digest(self.terms.network))
        stay.opened = StayOpened(stay.lease, stay.place, stay.generation, event.key, signature)
        effects: list[Any] = [Send(stay.gateway, stay.opened)]
        if stay.waiting is not None:
            frame, stay.waiting = stay.waiting, None
            effects += self._join(stay, frame)
        return effects

    def _joined(self, event: Joined) -> list[Any]:
        stay = self._mine(event.lease, event.generation)
        if stay is None:
            return []
        effects: list[Any] = []
        if stay.phase == "joining":
            stay.phase, stay.paid_s = "ready", self._passed_s
            stay.ready = StayReady(stay.lease, stay.generation, event.steps)
            effects.append(Lend(stay.model, stay.gateway, stay.unit_wei))
        if stay.ready is not None:
            effects.append(Send(stay.gateway, stay.ready))
        return effects

    def _fell(self, event: Fell) -> list[Any]:
        stay = self._mine(event.lease, event.generation)
        return [] if stay is None else self._end(event.code, event.detail)

    # --- time ---

    def _tick(self, now_s: float) -> list[Any]:
        stay = self.stay
        if stay is None:
            return []
        if now_s > stay.until_s + SPARE_S:
            return self._end("over", "the booking is over")
        if stay.unlinked_s is not None and self._passed_s - stay.unlinked_s > FORSAKEN_S:
            return self._end("unpaid", "its gateway was out of reach for too long")
        unordered_s = UNPAID_S if stay.was_ordered else WAITED_S
        unpaid_s = PAUSED_S - stay.paused_s if stay.is_paused else unordered_s
        if stay.phase == "ready" and self._passed_s - stay.paid_s > unpaid_s:
            self._shun(stay.gateway, now_s)
            return self._end("unpaid", f"nobody ordered an interval for {unpaid_s:.0f} s")
        if stay.phase != "ready" and self._passed_s - stay.since_s > JOINED_WITHIN_S:
            return self._end("unpaid", f"it wasn't ready within {JOINED_WITHIN_S:.0f} s")
        return []

    def _shun(self, gateway: Address, now_s: float) -> None:
        self._shunned[gateway] = now_s
        if len(self._shunned) > MOST_SHUNNED:
            del self._shunned[next(iter(self._shunned))]

    def _end(self, code: str = "", detail: str = "") -> list[Any]:
        stay = self.stay
        assert stay is not None, "only what began ends"
        self.stay, self._over = None, stay
        effects: list[Any] = [Withdraw(stay.model)] if stay.phase == "ready" else []
        effects.append(Lower(stay.lease, stay.generation))
        if code:
            broke = StayBroke(stay.lease, stay.generation, code, detail[:1_000])
            effects.append(Send(stay.gateway, broke))
        return [*effects, Vacant(vacant=self.is_vacant)]
