"""The machines in the market are the daemons': told what concerns them, put away when idle, and heard out in disputes."""

from clusterai.ledger.core import events
from clusterai.protocol.leases import DisputeReason
from clusterai.simulator import Market, decode_scenario
from clusterai.simulator.core.players import Auditor, Customer, Node

MARKET = """
name = "machines"
[market]
leases = {leases}
history = 0
steps = 4096
validators = 20
[[groups]]
strategy = "{strategy}"
operators = 2
[[groups]]
strategy = "honest"
operators = 3
"""


class Told(Market):
    """A market that keeps what the chain said."""

    def __init__(self, strategy: str, leases: int = 2) -> None:
        self.told: list[events.Event] = []
        self.followers: list[int] = []
        super().__init__(decode_scenario(MARKET.format(strategy=strategy, leases=leases)), 0)

    def _watch(self, event: events.Event) -> None:
        self.told.append(event)
        if isinstance(event, events.LeaseClosed):
            self.followers.append(len(self.network.leases[event.lease].auditors))
        super()._watch(event)

    def ended(self) -> set[DisputeReason]:
        return {DisputeReason(it.reason) for it in self.told if isinstance(it, events.DisputeEnded)}

    def disputes(self) -> set[tuple[int, ...]]:
        """How long the disputed range was after each round, of every dispute."""
        rounds: dict[bytes, tuple[int, ...]] = {}
        for it in self.told:
            if isinstance(it, events.RangeSelected):
                rounds[it.lease] = (*rounds.get(it.lease, ()), it.high - it.low)
        return set(rounds.values())


def test_a_lie_that_is_defended_goes_down_to_one_step_and_to_referees() -> None:
    """4,096 units take three rounds of sixteen; then fifteen seats decide."""
    market = Told("stubborn")
    outcome = market.run()
    assert market.disputes() == {(256, 16, 1)}
    assert market.ended() == {DisputeReason.REFEREES}
    assert (outcome.slashed, outcome.false_slashes) == ((2, 0), 0)


def test_a_lie_that_is_not_defended_ends_on_the_clock() -> None:
    """Who has nothing to say when it is its move has lost."""
    market = Told("full-skip")
    assert market.run().slashed == (2, 0)
    assert market.ended() == {DisputeReason.TIMEOUT}


def test_an_accuser_that_lies_through_the_whole_bisection_pays_its_bond() -> None:
    """The provider answers every round, and referees say what is right."""
    market = Told("false-accuser", leases=8)
    outcome = market.run()
    assert outcome.accusations > 0
    assert market.disputes() == {(256, 16, 1)}
    assert market.ended() == {DisputeReason.REFEREES}
    assert outcome.false_slashes == 0
    assert min(outcome.profits[0]) < 0 >= max(outcome.profits[0])


def test_a_provider_whose_machine_idles_has_none() -> None:
    """Nodes that nobody speaks to cost nothing; only the panel is awake all the time."""
    market = Told("honest")
    market.run()
    players = market.network.players.values()
    assert all(it.machine is None for it in players if isinstance(it, Node | Customer))
    assert all(it.machine is not None for it in players if isinstance(it, Auditor))


def test_an_auditor_follows_only_what_it_looks_after_or_was_named_for() -> None:
    """Of twenty auditors one or two have heard of a lease, and closed ones are forgotten."""
    market = Told("honest")
    market.run()
    assert len(market.followers) == 10
    assert {1, 2} >= set(market.followers) >= {2}
    assert all(not it.machine.cases for it in market.network.auditors)
