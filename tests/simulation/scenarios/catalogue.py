"""The scenarios by name, for tests and for `python -m tests.simulation.run NAME`.

happy            no faults at all
only-KIND        one kind of fault, in every seed
all-faults       each kind in half of the seeds
crowd            more of everybody
died-mid-stream  a provider is killed while it streams
prices-move      offers change while orders are on their way
withdrawals      unspent credit is taken back, under all faults
runs-past        a provider whose engine doesn't see where answers end
rates-move       the governor sets other parameters while epochs are on their way
away-PART        gateway, validators or the chain away for long
cut-off          a thousand receipts and a very long transcript, and no gateway to open them over
villain-NAME     one cheat, and what becomes of it
"""

from functools import partial

import msgspec

from clusterai.ledger.core import calls, events
from clusterai.protocol.ids import Address
from clusterai.protocol.messages import Answer
from clusterai.protocol.statements import EPOCH_LIST
from clusterai.runtime.simulator import Fault
from clusterai.work.inference import Generation, Sampling, decode_generation
from tests.simulation.play import Checkers, Scenario
from tests.simulation.villains.gateways import DoubleSpender
from tests.simulation.villains.providers import CHEATS, RunsPast
from tests.simulation.villains.validators import FalseAccuser, LazyValidator
from tests.simulation.world import engine
from tests.simulation.world.chain import ADDRESSES, DEPLOYER, RULES
from tests.simulation.world.providers import CREDIT_WEI
from tests.simulation.world.world import STAKE_WEI, Shape, World

ALL = tuple(Fault)
MILD = (Fault.DUPLICATION, Fault.DELAY, Fault.CUT, Fault.COMPACTION, Fault.SKEW, Fault.LATE_BLOCKS)
"""Faults that don't keep anybody from their duty for long."""
TAME = (
    Fault.DUPLICATION,
    Fault.COMPACTION,
    Fault.SKEW,
    Fault.LATE_BLOCKS,
    Fault.LOST_TRANSACTION,
    Fault.REORGANISATION,
)
"""Faults in spite of which each provider gets its share of the work: a cheat that gets none can't be caught."""

# --- what becomes of villains ---


def caught(world: World, checkers: Checkers) -> None:
    """The cheat lost its stake, is paid nothing more, and what it held went back to the accounts."""
    cheat = world.providers[0].party.address
    twin = world.ledger.twin
    assert cheat in checkers.justice.convicted, f"{world.providers[0].party} was not convicted"
    assert twin.registry.participant(cheat).stake == 0, "a convicted provider keeps no stake"
    refunded(world, checkers, cheat)


def refunded(world: World, checkers: Checkers, cheat: Address) -> None:
    """What accounts got back, and gateways for what they bore, is what the chain didn't pay to the cheat; and all that it
    wasn't paid of a gateway's deposits is that gateway's again."""
    for gateway in world.gateways:
        meter = gateway.meter
        assert meter is not None, "healed processes live"
        channel = meter.book.by_provider.get(cheat)
        if channel is None:
            continue
        kept_wei = world.ledger.twin.channels.channel(channel.channel_id).total_claimed
        back_wei = sum(account.refunded_wei for account in meter.book.accounts.values())
        back_wei += checkers.bills.forfeited_wei(channel.channel_id, kept_wei)
        assert back_wei == channel.vouchered_wei - kept_wei, (
            f"{back_wei} refunded or borne, {channel.vouchered_wei} vouchered, {kept_wei} kept"
        )
        put_wei = checkers.payments.put.get(channel.channel_id, 0)
        taken_wei = checkers.payments.taken_back.get(channel.channel_id, 0)
        assert put_wei - taken_wei == kept_wei, f"{put_wei} put, {taken_wei} taken back, {kept_wei} kept"


def gains_nothing(world: World, checkers: Checkers) -> None:
    """No honest participant lost anything to it."""
    assert not checkers.justice.convicted, f"convicted: {checkers.justice.convicted}"


def slashed(world: World, checkers: Checkers) -> None:
    """The accuser convicted nobody, and its own contradiction cost it its stake."""
    gains_nothing(world, checkers)
    accuser = world.validators[0].party.address
    assert world.ledger.twin.registry.participant(accuser).stake == 0, "the accuser kept its stake"


def in_vain(world: World, checkers: Checkers) -> None:
    """A lazy validator doesn't save the cheat that it waves through."""
    caught(world, checkers)


def paid_in_spite(world: World, checkers: Checkers) -> None:
    """Each provider was paid all that the cheating gateway's vouchers say, and risked no more than its credit."""
    gains_nothing(world, checkers)
    spender = world.gateways[1]
    for provider in world.providers:
        address = provider.party.address
        book = getattr(provider.process.machine, "claims", None)
        assert book is not None, "healed processes live"
        for channel_id, config in book.configs.items():
            if config.payer != spender.party.address:
                continue
            claimed_wei = world.ledger.twin.channels.channel(channel_id).total_claimed
            assert claimed_wei == book.vouched_wei(channel_id), (
                f"{provider.party} claimed {claimed_wei} of {book.vouched_wei(channel_id)}"
            )
            made_wei = sum(
                receipt.amount_wei
                for receipt in checkers.truth.receipts.values()
                if (receipt.provider, receipt.gateway) == (address, spender.party.address)
            )
            assert made_wei - claimed_wei <= CREDIT_WEI + CREDIT_WEI // 2, (
                f"{provider.party} worked {made_wei - claimed_wei} for nothing"
            )
        sums = world.ledger.twin.channels.receiver(address, ADDRESSES.token)
        assert sums.total_settled == sums.total_claimed, "what is claimed is paid"


# --- scripts ---


def died_mid_stream(world: World) -> None:
    """Kill the provider that streams, again and again; work must go on elsewhere with the very same tokens."""
    for at_s in range(20, 200, 20):
        world.simulation.run(at_s - (world.simulation.now_s - world.simulation.start_s))
        world.simulation.run(20, until=partial(_streams, world))
        for provider in world.providers:
            if provider.streaming:
                world.simulation.kill(provider.process, down_s=5)
                break
    world.heal()
    world.settle()


def stale_epochs(world: World) -> None:
    """A provider wakes with a clock that is a minute late, and no chain to set it by: its receipts are of a past epoch."""
    world.simulation.run(40)
    process = world.providers[0].process
    process.skew_us = -60_000_000
    world.chain.away(process, 90)
    world.simulation.kill(process, down_s=2)
    world.simulation.run(95)
    process.skew_us = 0
    world.simulation.run(world.shape.busy_s - 135)
    world.heal()
    world.settle()


def prices_move(world: World) -> None:
    """Providers change what they ask every few seconds, up and down, while orders at the old price are on their way."""
    for second in range(1, world.shape.busy_s, 3):
        for number, provider in enumerate(world.providers):
            provider.reprice(1 + (second + number) % 5, 7 + (second * 7 + number * 5) % 11)
        world.simulation.run(3)
    world.heal()
    world.settle()


def paid_as_agreed(world: World, checkers: Checkers) -> None:
    """Nobody is accused, and receipts of several prices were paid."""
    gains_nothing(world, checkers)
    orders = [checkers.truth.works[order].order for order in checkers.charges.charged]
    prices = {(order.input_price_wei, order.output_price_wei) for order in orders}
    assert len(prices) > 5, f"only {prices} were agreed"


def paid_back(world: World, checkers: Checkers) -> None:
    """Each withdrawal was paid, and the books say so.

    Under all faults a provider may be cut off for longer than anyone promises to wait; who may be convicted of that is what
    `JusticeDone` watches."""
    assert len(checkers.payouts.paid) == len(world.wallets) > 0
    for gateway in world.gateways:
        meter = gateway.meter
        assert meter is not None, "healed processes live"
        withdrawn_wei = sum(it.withdrawn_wei for it in meter.book.accounts.values())
        mine = [it.paid_wei for it in world.wallets if it.client.gateway is gateway]
        assert withdrawn_wei == sum(mine), f"{withdrawn_wei} withdrawn, {sum(mine)} paid"


def paid_for_what_was_wanted(world: World, checkers: Checkers) -> None:
    """Its receipts cover answers up to their ends, and those are paid."""
    cheat = world.providers[0].party.address
    cut = 0
    for order, charged in checkers.charges.charged.items():
        if charged.receipt.provider != cheat:
            continue
        wrong = checkers.truth.wrong(charged.receipt)
        assert wrong is None, f"{order.hex()} was paid, and {wrong}"
        generation = decode_generation(checkers.truth.works[order].request)
        whole, _ = engine.answer(
            generation.model, generation.prompt, generation.sampling.seed, generation.max_tokens
        )
        rest = whole[len(generation.so_far) :]
        cut += charged.receipt.answer == Answer(rest, "cancelled").digest()
    assert cut > 5, f"only {cut} answers were cut at their ends and paid"


def disputed_as_stale(world: World, checkers: Checkers) -> None:
    """It was told so by name, and nobody was charged for what it did."""
    notes = [note.detail for note in world.providers[0].notes if note.what == "disputed"]
    assert any("stale_epoch" in detail for detail in notes), f"not told: {notes}"
    gains_nothing(world, checkers)


def _streams(world: World) -> bool:
    return any(provider.streaming for provider in world.providers)


def away(who: str, seconds: float, world: World) -> None:
    """Someone is away for long, in the middle of everything."""
    world.simulation.run(60)
    match who:
        case "gateway":
            world.simulation.kill(world.gateways[0].process, seconds)
        case "validators":
            for validator in world.validators:
                world.simulation.kill(validator.process, seconds)
        case _:
            for process in world.simulation.processes:
                world.chain.away(process, seconds)
    world.simulation.run(world.shape.busy_s - 60)
    world.heal()
    world.settle()


def cut_off(world: World) -> None:
    """A thousand receipts in one epoch; before it is drawn, every gateway goes away until nobody can be challenged. In the
    middle of its answers the provider dies, and packs the rest anew."""
    world.simulation.run(CROWDED.epoch_s)
    client = world.clients[0]
    for number in range(CROWD):
        prompt = (number, *range(LONG_PROMPT)) if number == 0 else (number, 7, 7)
        generation = Generation(engine.MODEL, prompt, Sampling(seed=number), max_tokens=8)
        client.want(generation, 2 + 45 * number / CROWD if number else 0)
    world.simulation.run(CROWDED.epoch_s + 2, until=lambda: client.satisfied)
    for gateway in world.gateways:
        world.simulation.kill(gateway.process, CROWDED.window_s)
    end_s = world.simulation.now_s + CROWDED.window_s
    came: list[events.AnswerPart] = []
    world.chain.watchers.append(
        lambda block: came.extend(it for it in block.events if isinstance(it, events.AnswerPart))
    )
    begun = world.simulation.run(CROWDED.window_s, until=partial(_half_answered, world, came))
    assert begun, "an answer in many parts takes several blocks"
    world.simulation.kill(world.providers[0].process, down_s=3)
    world.simulation.run(end_s - world.simulation.now_s)
    world.heal()
    world.settle()


def _half_answered(world: World, came: list[events.AnswerPart]) -> bool:
    """Some parts came of an answer that isn't complete."""
    challenge_of = world.ledger.twin.court.challenge_of
    return any(not challenge_of(it.provider, it.epoch, it.index).answered for it in came)


def shown_on_chain(world: World, checkers: Checkers) -> None:
    """It was asked on chain for the list and for the long transcript, showed both in parts, and keeps its stake."""
    gains_nothing(world, checkers)
    told = [event for block in world.chain.blocks for event in block.events]
    counts = {it.epoch: it.count for it in told if isinstance(it, events.EpochCommitted)}
    crowded = next(epoch for epoch, count in counts.items() if count == CROWD)
    answered = {(it.epoch, it.index) for it in told if isinstance(it, events.ChallengeAnswered)}
    parts = {(it.epoch, it.index): it.parts for it in told if isinstance(it, events.AnswerPart)}
    for index in (0, EPOCH_LIST):
        assert (crowded, index) in answered, f"{index} of epoch {crowded} was not shown: {answered}"
        assert parts[crowded, index] > 4, f"{index} fits {parts[crowded, index]} parts"
    stake_wei = world.ledger.twin.registry.participant(world.providers[0].party.address).stake
    assert stake_wei == STAKE_WEI, "it keeps its stake"
    assert not any(isinstance(it, events.Voted) for it in told), "nobody even voted"


def rates_move(world: World) -> None:
    """Another rate, another time to answer and another bond every twenty seconds."""
    for turn, at_s in enumerate(range(20, world.shape.busy_s, 20)):
        world.simulation.run(at_s - (world.simulation.now_s - world.simulation.start_s))
        parameters = calls.Parameters(
            (1_000_000, 1, 400_000)[turn % 3],
            RULES.bounty_bps,
            (RULES.answer_s, RULES.answer_s // 2)[turn % 2],
            turn % 4 * RULES.challenge_bond_wei // 2,
        )
        world.chain.send(DEPLOYER.address, calls.SetParameters(parameters))
    world.simulation.run(20)
    world.heal()
    world.settle()


def draws_agree(world: World, checkers: Checkers) -> None:
    """Each epoch was audited by its own rate, as the Court itself draws; nobody was demanded what wasn't drawn."""
    gains_nothing(world, checkers)
    told = [event for block in world.chain.blocks for event in block.events]
    committed = {(it.provider, it.epoch): it for it in told if isinstance(it, events.EpochCommitted)}
    rates = {it.rate_ppm for it in committed.values()}
    assert {1_000_000, 400_000} < rates, "epochs of newcomers, and of what the governor asked for"
    assert min(rates) < 400_000, "epochs of providers with a history"
    drawn = world.ledger.twin.court.drawn
    for cleared in [it for it in told if isinstance(it, events.EpochCleared)]:
        count = committed[cleared.provider, cleared.epoch].count
        due = sum(bool(drawn(cleared.provider, cleared.epoch, index)) for index in range(count))
        assert cleared.audited == due, f"{cleared.audited} audited, {due} drawn"
    notes = [note for validator in world.validators for note in validator.notes]
    refused = [note.detail for note in notes if note.kind == "refused_by_chain"]
    assert not [it for it in refused if "NotDrawn" in it], f"refused: {refused}"


CROWD, LONG_PROMPT = 1_000, 60_000
CROWDED = msgspec.structs.replace(RULES, epoch_s=60, audit_rate_ppm=1_000_000)

BUSY = Shape(requests=50)

SCENARIOS: dict[str, Scenario] = {
    "happy": Scenario(kinds=()),
    "all-faults": Scenario(),
    **{f"only-{kind}": Scenario(kinds=(kind,), share=1) for kind in ALL},
    "crowd": Scenario(shape=Shape(gateways=2, providers=5, validators=4, clients=6)),
    "died-mid-stream": Scenario(
        kinds=MILD, share=0.2, shape=Shape(providers=3, requests=40), script=died_mid_stream
    ),
    "stale-epochs": Scenario(kinds=(), script=stale_epochs, verdict=disputed_as_stale),
    "prices-move": Scenario(share=0.3, script=prices_move, verdict=paid_as_agreed),
    "withdrawals": Scenario(shape=Shape(withdrawals=4), verdict=paid_back),
    "runs-past": Scenario(
        kinds=TAME,
        share=0.4,
        shape=BUSY,
        makers={"provider-0": RunsPast},
        verdict=paid_for_what_was_wanted,
    ),
    "away-gateway": Scenario(kinds=MILD, share=0.2, script=partial(away, "gateway", 120)),
    "away-validators": Scenario(kinds=MILD, share=0.2, script=partial(away, "validators", 150)),
    "away-chain": Scenario(kinds=MILD, share=0.2, script=partial(away, "chain", 50)),
    "rates-move": Scenario(kinds=TAME, share=0.4, shape=BUSY, script=rates_move, verdict=draws_agree),
    "cut-off": Scenario(
        kinds=(),
        shape=Shape(providers=1, validators=2, clients=1, requests=0),
        rules=CROWDED,
        script=cut_off,
        verdict=shown_on_chain,
    ),
    **{
        f"villain-{name}": Scenario(
            kinds=TAME, share=0.4, shape=BUSY, makers={"provider-0": cheat}, verdict=caught
        )
        for name, cheat in CHEATS.items()
    },
    "villain-LazyValidator": Scenario(
        kinds=TAME,
        share=0.4,
        shape=BUSY,
        makers={"validator-0": LazyValidator, "provider-0": CHEATS["SwapsWeights"]},
        verdict=in_vain,
    ),
    "villain-FalseAccuser": Scenario(
        kinds=TAME, share=0.4, makers={"validator-0": FalseAccuser}, verdict=slashed
    ),
    "villain-DoubleSpender": Scenario(
        kinds=TAME,
        share=0.4,
        shape=Shape(gateways=2, clients=4, settle_s=2_400),
        makers={"gateway-1": DoubleSpender},
        verdict=paid_in_spite,
    ),
    **{f"storm-{name}": Scenario(makers={"provider-0": cheat}) for name, cheat in CHEATS.items()},
    "storm-FalseAccuser": Scenario(makers={"validator-0": FalseAccuser}),
}
"""`storm-*`: a cheat under all faults; it may get away, but nobody honest may lose."""
