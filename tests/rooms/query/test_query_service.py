import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.signing import Key
from clusterai.work.engine import Busy, Finish, TokenEvent, Unfit
from clusterai.work.packed import bytes_of, tokens_of
from clusterai.work.query import KIND
from clusterai.work.query.adapters.computing import replayed
from clusterai.work.query.adapters.service import WAITING, QueryEngine
from clusterai.work.query.check import wrong
from clusterai.work.query.core.estimate import Answered, Estimate, estimated
from clusterai.work.query.core.sql import plan_of
from clusterai.work.query.spec import (
    MOST_REQUEST,
    Answer,
    Bound,
    Counted,
    QuerySpec,
    Refusal,
    Said,
    decode_query,
    decode_result,
    decode_said,
)
from tests.rooms.query.fake_vault import (
    GRANT,
    NETWORK,
    REQUESTER,
    SCHEMA,
    VAULT_KEY,
    FakeVault,
    awaited,
    query,
    unsealed,
)

COUNT = "select ward, count(*) as people, avg(age) as age from data group by ward"


async def at_once(_: float) -> None:
    """Time that passes at once."""


async def tokens_of_order(engine: QueryEngine, spec: QuerySpec) -> tuple[int, ...]:
    tokens: list[int] = []
    async for event in engine.submit(spec):
        if isinstance(event, TokenEvent):
            tokens.append(event.token)
        else:
            assert isinstance(event, Finish)
            assert event.reason == "stop"
    return tuple(tokens)


async def said(engine: QueryEngine, spec: QuerySpec) -> Said:
    tokens = await tokens_of_order(engine, spec)
    assert wrong(spec, tokens, "stop") is None
    return decode_said(bytes_of(tokens))


def engine_over(vault: FakeVault, tmp_path: Path) -> QueryEngine:
    return QueryEngine(vault, tmp_path, at_once)


@awaited
async def test_a_query_is_answered_sealed_and_signed(tmp_path: Path):
    """The requester opens the answer, reads its groups, and holds a use that the vault signed over that very answer."""
    vault = FakeVault()
    engine = engine_over(vault, tmp_path)
    spec = query(vault, COUNT)
    answer = await said(engine, spec)
    assert isinstance(answer, Answer)
    result = decode_result(unsealed(answer.sealed))
    assert (result.query, result.schema) == (spec.digest(), SCHEMA.digest())
    assert answer.use.signed_by(VAULT_KEY.address, NETWORK)
    assert answer.use.use.result == result.digest()
    assert isinstance(result.told, Counted)
    rows = estimated([Answered(plan_of(COUNT, SCHEMA), result.told.released)])
    assert [row[0] for row in rows] == ["north", "south"]
    people = [row[1] for row in rows]
    assert all(isinstance(it, Estimate) and it.value is not None and 200 < it.value < 300 for it in people)
    await engine.close()


@awaited
async def test_asking_the_same_again_costs_nothing_and_tells_nothing_new(tmp_path: Path):
    """A gateway that replays a signed query gets the same answer; the budget moves once."""
    vault = FakeVault()
    engine = engine_over(vault, tmp_path)
    spec = query(vault, COUNT)
    first = await tokens_of_order(engine, spec)
    vault.revoked = True
    assert await tokens_of_order(engine, spec) == first
    assert len(vault.spends) == 1


@awaited
async def test_an_answer_survives_a_restart(tmp_path: Path):
    """A vault that was started again gives the same result for the same query and spends nothing more."""
    vault = FakeVault()
    spec = query(vault, COUNT)
    answers = [await said(engine_over(vault, tmp_path / name), spec) for name in ("a", "b")]
    results = [unsealed(it.sealed) for it in answers if isinstance(it, Answer)]
    assert results[0] == results[1]
    assert len(vault.spends) == 1


@awaited
async def test_another_nonce_is_another_query(tmp_path: Path):
    """The same SQL with a fresh nonce costs its ε again and has other noise."""
    vault = FakeVault()
    engine = engine_over(vault, tmp_path)
    answers = [await said(engine, query(vault, COUNT, nonce)) for nonce in (1, 2)]
    results = {unsealed(it.sealed) for it in answers if isinstance(it, Answer)}
    assert len(results) == 2
    assert vault.budget_micro == 8_000_000


@awaited
async def test_who_holds_data_and_noise_key_gets_the_same_bytes(tmp_path: Path):
    """An audit by replay computes the digest that stands in the log of uses; on changed data it doesn't."""
    vault = FakeVault()
    spec = query(vault, COUNT)
    answer = await said(engine_over(vault, tmp_path), spec)
    assert isinstance(answer, Answer)
    seed = vault.noise_seed(spec.digest(), spec.nonce)
    assert replayed(spec, vault.schema, vault.data, seed).digest() == answer.use.use.result
    vault.data["age"] = vault.data["age"].copy()
    vault.data["age"][0] = 100 - vault.data["age"][0]
    assert replayed(spec, vault.schema, vault.data, seed).digest() != answer.use.use.result
    assert replayed(spec, vault.schema, vault.data, bytes(32)).digest() != answer.use.use.result


@awaited
async def test_a_spent_budget_is_a_refusal_at_no_price(tmp_path: Path):
    """When ε doesn't suffice the answer says what is left, and neither side counts a use."""
    vault = FakeVault(budget_micro=1_500_000)
    engine = engine_over(vault, tmp_path)
    tokens = [await tokens_of_order(engine, query(vault, COUNT, nonce)) for nonce in (1, 2)]
    refusal = decode_said(bytes_of(tokens[1]))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.detail) == ("budget", "500000 millionths of ε are left")
    assert [KIND.recount(query(vault, COUNT), it) for it in tokens] == [(1000, 1), (0, 0)]


@awaited
async def test_queries_that_race_for_the_budget_dont_overspend_it(tmp_path: Path):
    """Of many queries at once, as many are answered as the budget holds."""
    vault = FakeVault(budget_micro=3_000_000)
    engine = engine_over(vault, tmp_path)
    answers = await asyncio.gather(*(said(engine, query(vault, COUNT, nonce)) for nonce in range(WAITING)))
    assert sum(isinstance(it, Answer) for it in answers) == 3
    assert vault.budget_micro == 0


@awaited
async def test_too_many_at_once_are_told_to_come_back(tmp_path: Path):
    """The queue is bounded."""
    vault = FakeVault()
    engine = engine_over(vault, tmp_path)
    for nonce in range(WAITING):
        engine.submit(query(vault, COUNT, nonce))
    with pytest.raises(Busy):
        engine.submit(query(vault, COUNT, 99))
    await engine.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epsilon_micro": 2_000_000}, "bad_signature"),
        ({"grant": bytes(32)}, "bad_signature"),
        ({"signature": bytes(65)}, "bad_signature"),
        ({"signature": b"\x01" * 65}, "bad_signature"),
    ],
)
@awaited
async def test_a_query_that_a_gateway_changed_is_refused(tmp_path: Path, change: dict[str, Any], says: str):
    """Whatever is changed in a signed query, it isn't the requester's any more."""
    vault = FakeVault()
    with pytest.raises(Unfit, match=says):
        engine_over(vault, tmp_path).submit(msgspec.structs.replace(query(vault, COUNT), **change))
    assert not vault.spends


@awaited
async def test_a_gateways_own_key_cant_use_a_grant(tmp_path: Path):
    """A query that somebody else signed in its own name under this grant is refused."""
    vault, gateway = FakeVault(), Key(b"\x77" * 32)
    stolen = msgspec.structs.replace(query(vault, COUNT), requester=gateway.address).signed(gateway, NETWORK)
    with pytest.raises(Unfit, match="somebody else's"):
        engine_over(vault, tmp_path).submit(stolen)


@awaited
async def test_refusals_before_the_work_say_why(tmp_path: Path):
    """A query outside of the language, on an old snapshot or on a revoked grant is refused before anything is spent."""
    vault = FakeVault()
    engine = engine_over(vault, tmp_path)
    with pytest.raises(Unfit, match="rows never leave"):
        engine.submit(query(vault, "select age from data"))
    old = query(vault, COUNT)
    vault.snapshot = Digest(bytes(32))
    with pytest.raises(Unfit, match="other_snapshot"):
        engine.submit(old)
    vault.revoked = True
    with pytest.raises(Unfit, match="revoked"):
        engine.submit(query(vault, COUNT))
    assert not vault.spends


@awaited
async def test_a_grant_that_ends_while_a_query_waits_ends_it(tmp_path: Path):
    """What was revoked between order and work isn't answered."""
    vault = FakeVault()
    stream = engine_over(vault, tmp_path).submit(query(vault, COUNT))
    vault.revoked = True
    tokens = tuple([event.token async for event in stream if isinstance(event, TokenEvent)])
    refusal = decode_said(bytes_of(tokens))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "revoked"
    assert not vault.spends


@awaited
async def test_a_fault_tells_nothing_of_the_data(tmp_path: Path):
    """A computation that breaks closes its use with nothing, and its words stay at the vault."""
    vault = FakeVault()
    vault.broken = True
    refusal = await said(engine_over(vault, tmp_path), query(vault, COUNT))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "failed"
    assert "Smith" not in refusal.detail
    assert next(iter(vault.uses.values())).use.result == ZERO_DIGEST


def honest(spec: QuerySpec, vault: FakeVault) -> Answer:
    vault.spend(GRANT, spec.digest(), spec.epsilon_micro, 0)
    return Answer(spec.digest(), vault.used(spec.digest(), Digest(b"\x01" * 32)), b"sealed")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dataset": b"\x09" * 32}, "data set"),
        ({"grant": b"\x09" * 32}, "grant"),
        ({"requester": b"\x09" * 20}, "requester"),
        ({"order": b"\x09" * 32}, "order"),
        ({"epsilon_micro": 5}, "ε"),
        ({"grant_spent_micro": 5}, "sums"),
        ({"total_spent_micro": 999_999}, "sums"),
        ({"result": ZERO_DIGEST}, "nothing left"),
    ],
)
@awaited
async def test_a_use_that_isnt_this_querys_is_no_answer(change: dict[str, Any], says: str):
    """Gateways and validators see, without the data, that a use doesn't belong to the query; who asked doesn't pay, who answered is convicted."""
    vault = FakeVault()
    spec = query(vault, COUNT)
    answer = honest(spec, vault)
    false = msgspec.structs.replace(
        answer, use=msgspec.structs.replace(answer.use, use=msgspec.structs.replace(answer.use.use, **change))
    )
    tokens = tokens_of(canonical.encode(false))
    assert says in (wrong(spec, tokens, "stop") or "")
    assert KIND.check_part is not None
    assert (await KIND.check_part(spec, tokens, "stop", b"")).weight_milli > 27_632
    right = tokens_of(canonical.encode(answer))
    assert (await KIND.check_part(spec, right, "stop", b"")).weight_milli < 0


def test_tokens_that_are_no_answer_are_wrong():
    """Nonsense, another query's answer and an answer cut short are each named."""
    vault = FakeVault()
    spec, other = query(vault, COUNT), query(vault, COUNT, 2)
    right = tokens_of(canonical.encode(honest(spec, vault)))
    assert wrong(spec, right, "stop") is None
    assert "doesn't end" in (wrong(spec, right, "length") or "")
    assert "another query" in (wrong(other, right, "stop") or "")
    for tokens in ((), right[:-1], (3, 0xFFFFFF), tokens_of(b"nonsense")):
        assert "not an answer" in (wrong(spec, tokens, "stop") or "")
        assert KIND.recount(spec, tokens) == (0, 0)


def test_a_query_costs_its_epsilon_and_a_use():
    """The cap is thousandths of ε, rounded up, times their price, plus the price of a use."""
    spec = query(FakeVault(), COUNT, epsilon_micro=500_001)
    assert KIND.cap_wei(spec, 7, 100) == 501 * 7 + 100


def test_a_query_is_what_its_bytes_say():
    """Canonical bytes come back; the longest query still fits its limit."""
    vault = FakeVault()
    spec = query(vault, COUNT)
    assert decode_query(spec.canonical()) == spec
    bounds = tuple(Bound(-(10**15), 10**15) for _ in range(64))
    program: dict[str, Any] = {
        "code": Digest(b"\x01" * 32),
        "args": ("a" * 200,) * 16,
        "bounds": bounds,
        "blocks": 200,
        "block_s": 1,
    }
    assert len(query(vault, **program).canonical()) < MOST_REQUEST


@pytest.mark.parametrize(
    "more",
    [
        {"sql": COUNT, "epsilon_micro": 0},
        {"sql": COUNT, "epsilon_micro": 10**9},
        {"sql": COUNT, "code": Digest(b"\x01" * 32)},
        {"sql": COUNT, "blocks": 8},
        {"sql": COUNT, "bounds": (Bound(0, 1),)},
        {"sql": "select count(*) where ward = '\0'"},
        {"sql": "x" * 2_001},
        {"code": Digest(b"\x01" * 32), "bounds": (Bound(0, 1),), "blocks": 2, "block_s": 1},
        {"code": Digest(b"\x01" * 32), "bounds": (Bound(0, 1),), "blocks": 8, "block_s": 0},
        {"bounds": (Bound(0, 1),), "blocks": 8, "block_s": 1},
        {"code": Digest(b"\x01" * 32), "block_s": 1},
        {"sql": COUNT, "delta_pico": 10**9},
    ],
)
def test_a_query_that_contradicts_itself_isnt_decoded(more: dict[str, Any]):
    """Fields of one operation in another, and numbers out of range, are refused before anybody sees them."""
    vault = FakeVault()
    with pytest.raises(ValueError):  # noqa: PT011
        decode_query(query(vault, **more).canonical())


def test_only_the_requesters_signature_counts():
    """A signature holds for one network and one key."""
    spec = query(FakeVault(), COUNT)
    assert spec.is_signed(NETWORK)
    assert not spec.is_signed(msgspec.structs.replace(NETWORK, chain_id=1))
    assert spec.requester == REQUESTER.address


@awaited
async def test_delta_is_spent_where_it_is_used(tmp_path: Path):
    """A plan of one count keeps Laplace noise and spends no δ; one of many histograms takes the δ that it was allowed."""
    vault = FakeVault(budget_micro=10**9)
    engine = engine_over(vault, tmp_path)
    answer = await said(engine, query(vault, "select count(*)", 1, delta_pico=10**6))
    assert isinstance(answer, Answer)
    assert vault.delta_pico == 0
    many = ", ".join(f"histogram(age, {bins}), histogram(income, {bins})" for bins in range(2, 20))
    answer = await said(engine, query(vault, f"select {many}", 2, delta_pico=10**6))
    assert isinstance(answer, Answer)
    told = decode_result(unsealed(answer.sealed)).told
    assert isinstance(told, Counted)
    assert told.released.budget.mechanism == "gauss"
    assert vault.delta_pico == 10**6


@awaited
async def test_without_the_library_a_delta_is_refused_before_it_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A vault that lacks OpenDP answers without δ, and refuses with it at no cost."""
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    vault = FakeVault()
    engine = engine_over(vault, tmp_path)
    refusal = await said(engine, query(vault, COUNT, 1, epsilon_micro=1_234_567, delta_pico=77))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "no_delta"
    assert not vault.spends
    assert isinstance(await said(engine, query(vault, COUNT, 2)), Answer)
