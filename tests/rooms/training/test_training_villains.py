"""Who lies in federated training, and what comes of it: requesters, their programs, vaults."""

import asyncio
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from clusterai.protocol import canonical
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.vaults import SignedUse
from clusterai.sdk.identity import Identity
from clusterai.vault.adapters.aggregation import Declined
from clusterai.vault.core.secagg.messages import Spec
from clusterai.work.engine import Unfit
from clusterai.work.training.adapters.campaign import Campaign, Outcome, Wish
from clusterai.work.training.adapters.hosting import Training, purpose
from clusterai.work.training.adapters.packing import bundle_of
from clusterai.work.training.adapters.parties import Paid, VaultSaid, ask
from clusterai.work.training.adapters.rounds import Rounds
from clusterai.work.training.adapters.studio import Performed
from clusterai.work.training.core.bundle import Bundle
from clusterai.work.training.inside import records
from clusterai.work.training.spec import (
    Begin,
    Done,
    End,
    Good,
    Plain,
    Put,
    Round,
    Run,
    Vector,
    decode_done,
)
from tests.rooms.training.studies import APP, ME, NETWORK, Near, close_vaults, vaults

APPS = Path(__file__).parent / "apps"
MODEL = np.zeros((64, 10))
SENT = records.encode(
    {
        "arrays": ("arrays", {"weights": MODEL, "bias": np.zeros(10)}),
        "config": ("config", {"server-round": 1}),
    }
)


@pytest.fixture(autouse=True)
def closed() -> Generator[None]:
    yield
    close_vaults()


def run_of(parties: list[Near], **changes: Any) -> Run:
    run = Run(
        bytes(32),
        bundle_of(APP).digest,
        ME.address,
        b"",
        "num-examples",
        tuple(bytes(party.subject) for party in parties),
        tuple(party.service.member for party in parties),
        10_000_000,
        0,
        0,
        1,
        True,
    )
    return msgspec.structs.replace(run, **changes)


def memberships(parties: list[Near]) -> tuple[bytes, ...]:
    return tuple(party.vault.cohorts.membership(party.service.member) for party in parties)


async def begun(parties: list[Near], run: Run) -> Rounds:
    ways = Rounds(run, ME.key, parties)
    assert await ways.begin(bundle_of(APP).canonical(), memberships(parties)) == {}
    return ways


def test_what_a_program_tries_to_carry_out_stays(tmp_path: Path):
    """No file, no connection, no other vault's memory; its numbers leave clipped, in a sum, and no line that it printed."""
    app = APPS / "smuggler"
    parties = [
        Near(tmp_path / f"vault-{at}", f"vault-{at}", slice(at * 20, at * 20 + 20), app=app)
        for at in range(3)
    ]
    wish = Wish(rounds=1, norm=2.0)
    told: list[dict[str, Any]] = []
    outcome = asyncio.run(Campaign(app, parties, ME.key, wish, tmp_path / "run", told.append).train())
    summed = next(event for event in told if event["event"] == "summed")
    assert summed["metrics"]["escaped"] == 0
    assert summed["metrics"]["row"] <= 4096
    assert summed["length"] == pytest.approx(2.0, abs=1e-3)
    assert outcome.card["rounds"][0]["parts"][0]["commitment"]


def test_an_app_of_the_older_kind_is_summed_too(tmp_path: Path):
    """`client_fn` and `server_fn`: all clients are asked at once, and the mean is the weighted one."""
    app = APPS / "older"
    rows = (slice(0, 10), slice(10, 40), slice(40, 100))
    parties = [Near(tmp_path / f"vault-{at}", f"vault-{at}", rows[at], app=app) for at in range(3)]
    outcome: Outcome = asyncio.run(Campaign(app, parties, ME.key, Wish(rounds=2), tmp_path / "run").train())
    from tests.rooms.training.studies import digits

    assert outcome.model is not None
    with np.load(outcome.model) as found:
        assert found["0"][0] == pytest.approx(digits()[1][:100].mean(), abs=1e-4)
    assert outcome.history[-1]["accuracy"] == pytest.approx(1.0)


def test_a_requester_gets_no_single_vector_of_a_masked_run(tmp_path: Path):
    """Neither by asking for it, nor by a second sum of the same round over others, nor by a sum over fewer."""
    parties = vaults(tmp_path, most_rows=60)

    async def main() -> None:
        run = run_of(parties)
        ways = await begun(parties, run)
        among = [Digest(party.subject) for party in parties]
        summed = await ways.perform(0, SENT, "train", "1", among, None)
        assert len(summed.members) == 3
        with pytest.raises(VaultSaid, match="secure aggregation only"):
            await ask(parties[0], Plain(run.digest, 0), Vector)
        service = parties[0].service
        again = spec_of(run, parties, len(summed.total))
        # Begun again it is over the same members, or it isn't endorsed.
        await service.offered(again, ME.address)
        everyone = tuple(Address(member) for member in run.members)
        await service.endorsed(again, everyone)
        with pytest.raises(Declined, match="other members"):
            await service.endorsed(again, everyone[:2])
        with pytest.raises(Declined, match="among others"):
            await service.offered(msgspec.structs.replace(again, cohort=again.cohort[:2]), ME.address)
        few = msgspec.structs.replace(again, cohort=again.cohort[:1])
        with pytest.raises(Declined, match="too few"):
            await service.offered(few, ME.address)
        with pytest.raises(Declined, match="no round"):
            await service.offered(msgspec.structs.replace(again, purpose=bytes(32)), ME.address)

    asyncio.run(main())


def spec_of(run: Run, parties: list[Near], length: int) -> Spec:
    return Spec(
        server=ME.address,
        nonce=b"n" * 32,
        cohort=tuple(sorted(run.members)),
        beacon=bytes(32),
        groups=1,
        group=0,
        length=length,
        bits=64,
        degree=0,
        threshold=2,
        purpose=purpose(run.digest, 0),
        expires_s=int(time.time()) + 60,
    )


def test_orders_that_are_forged_repeated_or_for_other_runs_are_refused(tmp_path: Path):
    """Before anything is run, and so before anything is charged."""
    parties = vaults(tmp_path, most_rows=60)
    one = parties[0]

    async def main() -> None:
        run = run_of(parties)
        ways = await begun(parties, run)
        await ask(one, Put(run.digest, SENT), Good)
        order = ways.order(one, 0, SENT, "train", "1", 0)
        mallory = Identity.make()
        forged = msgspec.structs.replace(order, signature=mallory.key.sign(order.signing_digest()))
        for wrong, why in (
            (forged, "signed"),
            (msgspec.structs.replace(order, number=1), "signed"),
            (ways.order(parties[1], 0, SENT, "train", "1", 0), "another vault"),
            (ways.order(one, 0, b"another message", "train", "1", 0), "message isn't here"),
            (msgspec.structs.replace(order, run=bytes(32)), "no such run"),
        ):
            with pytest.raises(Unfit, match=why):
                one.service.submit(wrong)
        first = await one.order(order, None)
        assert (await one.order(order, None)).answer == first.answer
        assert len(one.vault.uses()) == 1
        with pytest.raises(Unfit, match="ordered before"):
            one.service.submit(ways.order(one, 0, SENT, "evaluate", "1", 0))

    asyncio.run(main())


class Moody:
    """A studio whose app answers nothing the first time and what it learnt the second: whoever had both by the same noise, had the rows."""

    times = 0

    async def perform(self, bundle: Bundle, message: bytes, *_: Any) -> Performed:
        arrays: Any = records.decode(message)["arrays"][1]
        self.times += 1
        learnt: dict[str, Any] = {name: np.asarray(it) + (self.times > 1) for name, it in arrays.items()}
        reply: records.Records = {
            "arrays": ("arrays", learnt),
            "metrics": ("metrics", {"num-examples": 1}),
        }
        return Performed(reply)


def test_an_order_with_epsilon_is_computed_once_whatever_is_forgotten(tmp_path: Path):
    """A run that was ended and begun again, in one process or after a restart, computes no order anew: its noise would be the same."""
    one = Near(tmp_path / "one", "one", slice(0, 20), epsilon_micro=4_000_000)
    moody: Any = Moody()
    sent = records.encode({"arrays": ("arrays", {"model": np.zeros(3)}), "config": ("config", {})})
    run = run_of([one], noise_milli=4_000, delta_pico=10**6, masked=False)
    vectors: list[Vector] = []

    async def main() -> None:
        for restart in (True, False, True):
            if restart:
                one.service = Training(one.vault, lambda: moody)
            ways = await begun([one], run)
            await ask(one, Put(run.digest, sent), Good)
            done = decode_done(
                (await one.order(ways.order(one, 0, sent, "train", "1", 4_000_000), None)).answer
            )
            if isinstance(done, Done):
                vectors.append(await ask(one, Plain(run.digest, 0), Vector))
            else:
                assert "answered before" in done.detail
                with pytest.raises(VaultSaid, match="no such round"):
                    await ask(one, Plain(run.digest, 0), Vector)
            await ask(one, End(run.digest), Good)

    asyncio.run(main())
    assert len(vectors) == moody.times == len(one.vault.uses()) == 1


def test_runs_that_a_grant_does_not_cover_do_not_begin(tmp_path: Path):
    """Another app under the same grant, another requester, a stranger among the vaults, two vaults behind masks."""
    parties = vaults(tmp_path, most_rows=60)
    one = parties[0]
    bundle = bundle_of(APP).canonical()
    other = bundle_of(APPS / "smuggler")

    async def main() -> None:
        run = run_of(parties)
        for wrong, sent, why in (
            (msgspec.structs.replace(run, app=other.digest), other.canonical(), "other_code"),
            (msgspec.structs.replace(run, app=other.digest), bundle, "bundle"),
            (msgspec.structs.replace(run, requester=bytes(20)), bundle, "requester"),
            (run_of(parties[1:]), bundle, "stranger"),
            (msgspec.structs.replace(run, members=tuple(reversed(run.members))), bundle, "stranger"),
            (run_of(parties[:2]), bundle, "few"),
            (msgspec.structs.replace(run, together=True), bundle, "trusts the other vaults"),
        ):
            with pytest.raises(VaultSaid, match=why):
                await ask(one, Begin(wrong, one.grant, sent), Good)

    asyncio.run(main())


class Liar(Near):
    """A vault that answers an order with what it answered before, gives another vector than it committed to, or signs by nobody's key."""

    lie = ""
    kept: Paid | None = None

    async def call(self, data: bytes) -> bytes:
        reply = await super().call(data)
        if self.lie == "vector" and b"Plain" in data[:200]:
            told = canonical.decode(reply, Vector, 1 << 24)
            return canonical.encode(msgspec.structs.replace(told, values=bytes(len(told.values))))
        return reply

    async def order(self, request: Round, most_wei: int | None) -> Paid:
        if self.lie == "replay" and self.kept is not None:
            return self.kept
        self.kept = await super().order(request, most_wei)
        if self.lie == "signature":
            done = decode_done(self.kept.answer)
            assert isinstance(done, Done)
            use = canonical.decode(done.use, SignedUse).use
            signed = SignedUse(use, ME.key.sign(use.signing_digest(NETWORK)))
            false = msgspec.structs.replace(done, use=canonical.encode(signed))
            return msgspec.structs.replace(self.kept, answer=false.canonical())
        return self.kept


@pytest.mark.parametrize(
    ("lie", "why"),
    [("vector", "committed"), ("replay", "another order"), ("signature", "isn't signed by the key")],
)
def test_a_vault_that_replays_or_changes_its_vector_or_signs_falsely_is_left_out(
    tmp_path: Path, lie: str, why: str
):
    """Its old answer is of another order; another vector isn't the one that it committed to; a use that somebody else signed convicts nobody."""
    rows = slice(0, 60)
    parties: list[Near] = [Near(tmp_path / f"v{at}", f"v{at}", rows) for at in range(2)]
    liar = Liar(tmp_path / "liar", "liar", rows)
    liar.lie = lie
    parties.append(liar)

    async def main() -> None:
        ways = await begun(parties, run_of(parties, masked=False))
        among = [Digest(party.subject) for party in parties]
        first = await ways.perform(0, SENT, "train", "1", among, None)
        second = await ways.perform(1, SENT, "train", "1", among, None)
        assert why in second.dropped["liar"]
        assert len(second.members) == 2
        assert ("liar" in first.dropped) == (lie != "replay")

    asyncio.run(main())
