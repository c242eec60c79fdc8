"""Queries over a vault as it is served: encrypted rows, a journal, grants and three budgets."""

from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from clusterai.cli.failure import Failure
from clusterai.cli.querying.replaying import Asked, Known, Replayed, asked_in, replay
from clusterai.ledger.core.standing import Standing
from clusterai.protocol.ids import ZERO_DIGEST, Digest
from clusterai.protocol.vaults import Operation
from clusterai.vault.core.policy import MICRO
from clusterai.work.engine import TokenEvent, Unfit
from clusterai.work.packed import bytes_of
from clusterai.work.query.adapters.computing import replayed
from clusterai.work.query.adapters.hosting import host
from clusterai.work.query.check import wrong
from clusterai.work.query.core.estimate import Answered, Estimate, estimated
from clusterai.work.query.core.sql import plan_of
from clusterai.work.query.spec import (
    Answer,
    Counted,
    QuerySpec,
    Refusal,
    Said,
    asked,
    decode_result,
    decode_said,
)
from tests.rooms.query.fake_vault import awaited
from tests.rooms.vault.vaultbed import HOT, NETWORK, Bed

SQL = "select ward, count(*) as rows, avg(dose) as dose, count(distinct patient) as patients from wards group by ward"


@pytest.fixture
def bed(tmp_path: Path) -> Generator[Bed]:
    made = Bed(tmp_path)
    yield made
    made.close()


def spec_of(
    bed: Bed, grant: Digest, nonce: int = 1, sql: str = SQL, epsilon_micro: int = MICRO // 2
) -> QuerySpec:
    unsigned = asked(
        dataset=bed.vault.dataset,
        snapshot=bed.vault.snapshot,
        grant=grant,
        requester=bed.identity.address,
        nonce=nonce.to_bytes(32),
        epsilon_micro=epsilon_micro,
        sql=sql,
    )
    return unsigned.signed(bed.identity.key, NETWORK)


async def said(bed: Bed, spec: QuerySpec) -> Said:
    service = host(bed.vault)
    tokens = tuple([it.token async for it in service.engine.submit(spec) if isinstance(it, TokenEvent)])
    await service.engine.close()
    assert wrong(spec, tokens, "stop") is None
    return decode_said(bytes_of(tokens))


@awaited
async def test_a_vault_answers_and_its_log_holds_the_use(bed: Bed):
    """Grant, query, answer, log: what the requester opens is what the log's leaf digests, and ε is spent once."""
    spec = spec_of(bed, bed.grant())
    answer = await said(bed, spec)
    assert isinstance(answer, Answer)
    assert answer.use.signed_by(HOT.address, NETWORK)
    result = decode_result(bed.identity.opened(bed.vault.seal_to, answer.sealed, ZERO_DIGEST))
    assert result.digest() == answer.use.use.result == bed.vault.uses()[0].result
    assert isinstance(result.told, Counted)
    rows = estimated([Answered(plan_of(SQL, bed.vault.schema), result.told.released)])
    assert [row[0] for row in rows] == ["east", "west"]
    assert isinstance(rows[0][1], Estimate)
    again = await said(bed, spec)
    assert isinstance(again, Answer)
    assert again.use == answer.use
    assert len(bed.vault.uses()) == 1


@awaited
async def test_a_replica_gets_the_same_bytes_after_a_restart(bed: Bed):
    """Who opens the same vault with its noise key computes the logged digest from the data again."""
    spec = spec_of(bed, bed.grant())
    answer = await said(bed, spec)
    assert isinstance(answer, Answer)
    vault = bed.restart()
    seed = vault.noise_seed(spec.digest(), Digest(spec.nonce))
    columns = vault.columns(plan_of(SQL, vault.schema).columns)
    assert replayed(spec, vault.schema, columns, seed).digest() == answer.use.use.result
    again = await said(bed, spec)
    assert isinstance(again, Answer)
    assert again.use == answer.use


@awaited
async def test_differencing_ends_where_the_budget_does(bed: Bed):
    """One who asks ever narrower queries is refused when the grant's ε is spent, and no query costs less for being narrow."""
    grant = bed.grant()
    answers = [
        await said(bed, spec_of(bed, grant, age, f"select count(*) from wards where age < {age}", 100_000))
        for age in range(20, 35)
    ]
    assert sum(isinstance(it, Answer) for it in answers) == 10
    assert {it.code for it in answers if isinstance(it, Refusal)} <= {"budget", "spent"}
    assert bed.vault.uses()[-1].epsilon_micro == 100_000


@awaited
async def test_a_grant_for_programs_answers_no_sql(bed: Bed):
    """A grant holds for its own operation."""
    with pytest.raises(Unfit, match="operation"):
        await said(bed, spec_of(bed, bed.grant(operation=Operation.CODE)))


def known(bed: Bed, *of: Asked) -> Known:
    """What the chain has of this vault, for each."""
    said = (bytes(32), bytes(32), bytes(32), bed.vault.noise_commit)
    return Known(NETWORK, (Standing(bed.owner, lister=bed.owner, said=said),) * len(of))


@awaited
async def test_an_owner_replays_what_was_answered(bed: Bed):
    """Beside the vault that serves, its folder gives the logged result again; a query that was never answered isn't in the log."""
    spec, never = spec_of(bed, bed.grant()), Asked(spec_of(bed, Digest(b"\x01" * 32), 2))
    answer = await said(bed, spec)
    assert isinstance(answer, Answer)
    mine = Asked(spec, answer.use)
    done = replay(bed.folder, [mine, never], known(bed, mine, never))
    assert [(it.wrong, it.answered, it.signed == it.logged) for it in done] == [
        ("", True, True),
        ("", False, True),
    ]


@pytest.mark.parametrize("how", ["key", "beacon"])
@awaited
async def test_a_vault_that_gave_other_noise_shows_in_the_replay(
    bed: Bed, how: str, monkeypatch: pytest.MonkeyPatch
):
    """Noise of a key that it hadn't committed to, or of a nonce that it chose: its signature stands under what rows and key don't make."""
    plain = bed.vault.noise_seed

    def seed(order: Digest, _beacon: bytes) -> bytes:
        return b"\x07" * 32 if how == "key" else plain(order, b"chosen")

    monkeypatch.setattr(bed.vault, "noise_seed", seed)
    spec = spec_of(bed, bed.grant())
    answer = await said(bed, spec)
    assert isinstance(answer, Answer)
    mine = Asked(spec, answer.use)
    [done] = replay(bed.folder, [mine], known(bed, mine))
    assert done.wrong == "not what was answered"


@awaited
async def test_a_vault_whose_key_isnt_the_one_on_chain_is_refused_by_name(bed: Bed):
    """Also where all it answered was drawn from that key; and where the chain has nothing to compare with."""
    mine = Asked(spec_of(bed, bed.grant()))
    [on_chain] = known(bed, mine).standings
    other = msgspec.structs.replace(on_chain, said=(bytes(32),) * 4)
    with pytest.raises(Failure, match="wards draws noise from another key than it committed to"):
        replay(bed.folder, [mine], Known(NETWORK, (other,)))
    with pytest.raises(Failure, match="wards isn't listed on chain"):
        replay(bed.folder, [mine], Known(NETWORK, (msgspec.structs.replace(on_chain, said=None),)))


def test_a_programs_other_numbers_accuse_nobody():
    """One that uses time or chance gives others in honest hands; what was signed otherwise than it is logged is false in any."""
    done = Replayed("0xq", "program", result="0xa", logged="0xb", signed="0xb", tally=None)
    assert "or the program uses time or chance" in done.complaint("wards")
    for it in (
        msgspec.structs.replace(done, kind="query"),
        msgspec.structs.replace(done, signed="0xc"),
        msgspec.structs.replace(done, result="0xb", signed="0xc"),
        msgspec.structs.replace(done, logged=None),
    ):
        assert it.complaint("wards").startswith(f"wards gave a false answer to 0xq: {it.wrong}")
        assert it.wrong


@awaited
async def test_queries_of_another_version_arent_replayed(bed: Bed):
    """A snapshot that the vault no longer has is told as such."""
    spec = spec_of(bed, bed.grant())
    old = Asked(msgspec.structs.replace(spec, snapshot=bytes(32)))
    with pytest.raises(Failure, match="none of these queries is of wards"):
        replay(bed.folder, [old], known(bed, old))


def test_a_file_that_isnt_a_query_is_named(tmp_path: Path):
    """Whatever isn't what the command wrote is refused; of a training it is said that it isn't done again."""
    file = tmp_path / "answer.json"
    file.write_text('{"vaults": [{"request": "AAAA"}]}')
    with pytest.raises(Failure, match="isn't what clusterai query"):
        asked_in(file)
    file.write_text('{"format": "clusterai-lineage/1", "vaults": []}')
    with pytest.raises(Failure, match="a training isn't done again"):
        asked_in(file)
