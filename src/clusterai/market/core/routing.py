"""Who gets the next order: two candidates are drawn, the better one wins.

Drawing two and taking the better keeps the load even without everyone running to the same best provider, at the cost
of two lookups (Mitzenmacher 2001). Better is cheaper, quicker, less busy, of better standing, each as a factor, so
that no unit has to be weighed against another.

    linked ──> usable ──failure──> suspended 2 s, 4 s, … 5 min ──> probation: one order at a time ──success──> usable
                 └──Refused(busy)──> busy until it said ──> usable

A suspended provider comes back by itself: nobody has to notice that it is well again.
"""

from collections.abc import Callable, Container, Iterable
from math import exp
from typing import Literal

import msgspec

from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Announce, ModelOffer

SUSPEND_S = 2.0
SUSPEND_MOST_S = 300.0
LEAST_LATENCY_S = 0.05
"""First-token times below this count as this: a millisecond's lead must not win all the work. It is also what a
provider that was never measured is believed to take, so that newcomers are tried."""
MOST_COUNTED = 20_000
"""Pairs of model and provider whose answers are counted."""
SMOOTHING = 0.2
"""Weight of the newest first-token time in its moving average."""
NEWCOMER_FACTOR = 1.1
"""Providers without a cleared epoch lose ties; more would starve them."""
WORST_FACTOR = 2.0
"""A provider of no quality counts as so much dearer; the convicted aren't linked at all."""

Sort = Literal["balanced", "price", "latency"]


class Preference(msgspec.Struct, frozen=True):
    """What the requester demands of a provider. Source: OpenRouter's `provider` object."""

    only: tuple[Address, ...] = ()
    ignore: tuple[Address, ...] = ()
    sort: Sort = "balanced"
    most_input_wei: int | None = None
    most_output_wei: int | None = None


class Pick(msgspec.Struct, frozen=True):
    provider: Address
    offer: ModelOffer


class NoPick(msgspec.Struct, frozen=True):
    """Why nobody can do it now. `retry_after_s` is when that may have changed.

    `absent`: nobody linked serves the model. `unwanted`: the preference, or earlier tries, rule all out. `suspended`:
    all failed lately. `busy`: all are full. `unfunded`: no channel covers the price yet.
    """

    reason: Literal["absent", "unwanted", "suspended", "busy", "unfunded"]
    detail: str
    retry_after_s: float


class Standing(msgspec.Struct):
    """What routing knows of one linked provider; times are the clock's seconds."""

    offers: dict[Digest, ModelOffer]
    running: int = 0
    queued: int = 0
    paused: bool = False
    ours: int = 0
    """orders that this gateway has with it now"""
    first_token_s: float = LEAST_LATENCY_S
    failures: int = 0
    """in a row"""
    suspended_until_s: float = 0.0
    busy_until_s: float = 0.0
    cleared: int = 0
    """epochs in which all its drawn receipts were found right"""
    last_failure: str = ""


class Recent(msgspec.Struct):
    """A count of which an hour forgets all but 1/e: of a steady stream, what comes in an hour."""

    count: float = 0.0
    at_s: float = 0.0

    def read(self, now_s: float) -> float:
        return self.count * exp(-max(0.0, now_s - self.at_s) / 3600)


class Routing:
    """The gateway's view of the linked providers. Losing it costs nothing: it fills again from the links."""

    def __init__(self, quality: Callable[[Address], float] | None = None) -> None:
        """
        Args:
            quality: what a provider has shown, 0 ... 1 (`reputation`); by default only whether it ever was cleared.
        """
        self._quality = quality
        self.providers: dict[Address, Standing] = {}
        self._memory: dict[Address, Standing] = {}
        self._answers: dict[tuple[Digest, Address | None], Recent] = {}

    def linked(self, provider: Address) -> None:
        """A provider that failed and comes back keeps its suspension: flapping must not reset it."""
        standing = self._memory.pop(provider, None) or Standing({})
        standing.offers = {}
        standing.ours = 0
        self.providers[provider] = standing

    def unlinked(self, provider: Address) -> None:
        standing = self.providers.pop(provider, None)
        if standing is not None:
            self._memory[provider] = standing
            if len(self._memory) > 10_000:
                del self._memory[next(iter(self._memory))]

    def announced(self, provider: Address, announce: Announce) -> None:
        standing = self.providers.get(provider)
        if standing is None:
            return
        standing.offers = {Digest(offer.model): offer for offer in announce.offers}
        standing.paused = announce.paused
        self.loaded(provider, announce.running, announce.queued)

    def loaded(self, provider: Address, running: int, queued: int) -> None:
        standing = self.providers.get(provider)
        if standing is not None:
            standing.running, standing.queued = running, queued

    def started(self, provider: Address) -> None:
        self.providers[provider].ours += 1

    def ended(self, provider: Address) -> None:
        """An order with it is over, however it ended."""
        standing = self.providers.get(provider)
        if standing is not None and standing.ours:
            standing.ours -= 1

    def succeeded(self, provider: Address, first_token_s: float | None) -> None:
        standing = self.providers.get(provider)
        if standing is None:
            return
        standing.failures = 0
        standing.suspended_until_s = 0.0
        if first_token_s is not None:
            standing.first_token_s += SMOOTHING * (first_token_s - standing.first_token_s)

    def answered(self, model: Digest, provider: Address, now_s: float) -> None:
        """Counted for its owner to read; nothing is chosen by it."""
        for key in ((model, None), (model, provider)):
            recent = self._answers.setdefault(key, Recent())
            recent.count, recent.at_s = recent.read(now_s) + 1, now_s
        if len(self._answers) > MOST_COUNTED:
            for key in [key for key, it in self._answers.items() if it.read(now_s) < 0.5]:
                del self._answers[key]
            while len(self._answers) > MOST_COUNTED:
                del self._answers[next(iter(self._answers))]

    def answers_an_hour(self, model: Digest, provider: Address | None, now_s: float) -> float:
        """Lately, by one provider or by all."""
        recent = self._answers.get((model, provider))
        return 0.0 if recent is None else recent.read(now_s)

    def failed(self, provider: Address, why: str, now_s: float) -> None:
        standing = self.providers.get(provider) or self._memory.get(provider)
        if standing is None:
            return
        if now_s >= standing.suspended_until_s:
            # Orders that ran side by side fail together: that is one failure, not many.
            standing.failures += 1
            pause_s = min(SUSPEND_MOST_S, SUSPEND_S * 2 ** (standing.failures - 1))
            standing.suspended_until_s = now_s + pause_s
        standing.last_failure = why

    def busy(self, provider: Address, until_s: float) -> None:
        standing = self.providers.get(provider)
        if standing is not None:
            standing.busy_until_s = max(standing.busy_until_s, until_s)

    def freed(self, provider: Address) -> None:
        standing = self.providers.get(provider)
        if standing is not None:
            standing.busy_until_s = 0.0

    def withdrew(self, provider: Address, model: Digest) -> None:
        """It said that it doesn't serve the model after all; until its next announcement, believe it."""
        standing = self.providers.get(provider)
        if standing is not None:
            standing.offers.pop(model, None)

    def rejected(self, provider: Address, offer: ModelOffer) -> None:
        """It doesn't stand by this offer any more; one that came since then holds."""
        standing = self.providers.get(provider)
        if standing is not None and standing.offers.get(Digest(offer.model)) == offer:
            del standing.offers[Digest(offer.model)]

    def cleared(self, provider: Address) -> None:
        standing = self.providers.get(provider) or self._memory.get(provider)
        if standing is not None:
            standing.cleared += 1

    def offers(self, model: Digest) -> Iterable[tuple[Address, ModelOffer]]:
        for provider, standing in self.providers.items():
            if (offer := standing.offers.get(model)) is not None:
                yield provider, offer

    def usable(self, model: Digest, now_s: float) -> Iterable[Pick]:
        """Whom an order without any preference could go to now, as far as the channel covers it."""
        for provider, offer in self.offers(model):
            if self.obstacle(provider, offer, _ANY, (), now_s) is None:
                yield Pick(provider, offer)

    def cheapest(self, model: Digest, preference: Preference) -> tuple[int, int]:
        """The least that a unit in and one out may cost, by the cheapest offer that the preference allows; 0 without any."""
        offers = [
            (offer.input_price_wei, offer.output_price_wei)
            for provider, offer in self.offers(model)
            if not _unwanted(provider, offer, preference)
        ]
        return min(offers, key=sum, default=(0, 0))

    def choose(
        self,
        model: Digest,
        preference: Preference,
        exclude: Container[Address],
        affords: Callable[[Address, ModelOffer], bool],
        draw: int,
        now_s: float,
    ) -> Pick | NoPick:
        """The better of two usable providers that `draw` (any integer, handed in from outside) points at.

        Args:
            affords: whether the channel with this provider covers the request at this offer.
        """
        usable: list[Pick] = []
        reasons: list[NoPick] = []
        for provider, offer in self.offers(model):
            obstacle = self.obstacle(provider, offer, preference, exclude, now_s)
            if obstacle is None and not affords(provider, offer):
                obstacle = NoPick("unfunded", "the payment channel is being topped up", 2.0)
            if obstacle is None:
                usable.append(Pick(provider, offer))
            else:
                reasons.append(obstacle)
        if not usable:
            if not reasons:
                return NoPick("absent", "no linked provider serves this model", 5.0)
            return min(reasons, key=lambda reason: (_RANK[reason.reason], reason.retry_after_s))
        if len(usable) == 1:
            return usable[0]
        first = draw % len(usable)
        second = (first + 1 + draw // len(usable) % (len(usable) - 1)) % len(usable)
        return min(usable[first], usable[second], key=lambda pick: self.score(pick, preference.sort))

    def score(self, pick: Pick, sort: Sort = "balanced") -> float:
        """Expected cost x expected wait; lower is better."""
        standing = self.providers[pick.provider]
        # Its own count of running orders is some seconds old, ours is exact but blind to other gateways'.
        load = max(standing.running + standing.queued, standing.ours)
        wait = max(LEAST_LATENCY_S, standing.first_token_s) * (1 + load / max(1, pick.offer.slots))
        price = 1 + pick.offer.input_price_wei + pick.offer.output_price_wei
        if sort == "price":
            return price
        if sort == "latency":
            return wait
        return price * wait * self._doubt(pick.provider, standing)

    def _doubt(self, provider: Address, standing: Standing) -> float:
        if self._quality is None:
            return 1 if standing.cleared else NEWCOMER_FACTOR
        return WORST_FACTOR - (WORST_FACTOR - 1) * self._quality(provider)

    def obstacle(
        self,
        provider: Address,
        offer: ModelOffer,
        preference: Preference,
        exclude: Container[Address],
        now_s: float,
    ) -> NoPick | None:
        """Why an order can't go there now."""
        standing = self.providers[provider]
        if provider in exclude:
            return NoPick("unwanted", _RULED_OUT, 5.0)
        if (unwanted := _unwanted(provider, offer, preference)) is not None:
            return unwanted
        if now_s < standing.suspended_until_s:
            left_s = standing.suspended_until_s - now_s
            return NoPick("suspended", f"its provider failed lately: {standing.last_failure}", left_s)
        if standing.failures and standing.ours:
            return NoPick("busy", "its provider is on probation, one request at a time", 1.0)
        if standing.paused:
            return NoPick("busy", "its provider takes no new work now", 5.0)
        if now_s < standing.busy_until_s:
            return NoPick("busy", "its providers are all busy", standing.busy_until_s - now_s)
        return None


_ANY = Preference()
_RULED_OUT = "every provider of this model refused or was ruled out"


def _unwanted(provider: Address, offer: ModelOffer, preference: Preference) -> NoPick | None:
    if provider in preference.ignore:
        return NoPick("unwanted", _RULED_OUT, 5.0)
    if preference.only and provider not in preference.only:
        return NoPick("unwanted", "provider.only names nobody who serves this model now", 5.0)
    if _above(offer.input_price_wei, preference.most_input_wei) or _above(
        offer.output_price_wei, preference.most_output_wei
    ):
        return NoPick("unwanted", "every offer is above provider.max_price", 30.0)
    return None


_RANK = {"busy": 0, "unfunded": 1, "suspended": 2, "unwanted": 3, "absent": 4}


def _above(price_wei: int, most_wei: int | None) -> bool:
    return most_wei is not None and price_wei > most_wei
