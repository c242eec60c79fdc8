"""Both ends as programs use them: bytes in, bytes out, vaults that die, answer rubbish or refuse."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from clusterai.protocol.canonical import Malformed, encode
from clusterai.protocol.ids import Address
from clusterai.protocol.signing import Key
from clusterai.runtime.adapters.journal import SqliteJournal
from clusterai.vault.adapters.aggregation import (
    MAX_ROUNDS,
    Aggregation,
    Declined,
    NoSum,
    SumDesk,
    Unreachable,
)
from clusterai.vault.core.secagg.checking import Checked, Published, to_checker
from clusterai.vault.core.secagg.joint import (
    Moments,
    MomentsFound,
    Range,
    contribution,
    found,
    largest,
    length,
    purpose,
)
from clusterai.vault.core.secagg.member import Contribution
from clusterai.vault.core.secagg.messages import Spec, to_server
from clusterai.vault.core.secagg.quantise import plan
from tests.rooms.secagg.played import SERVER, inputs, keys
from tests.rooms.secagg.test_lying_servers import resigned

NOW_S = 1000.0


class Vaults:
    """Desks behind a wire that a test cuts: `dead` from a given call on, counted by vault."""

    def __init__(self, count: int, length: int = 700) -> None:
        self.keys = keys(count)
        self.inputs = dict(zip(self.keys, inputs(count, length), strict=True))
        self.desks = {
            who: SumDesk(key, self.offer(who), clock=lambda: NOW_S) for who, key in self.keys.items()
        }
        self.calls = dict.fromkeys(self.keys, 0)
        self.dead_from: dict[Address, int] = {}
        self.refusing: set[Address] = set()
        self.rubbish: set[Address] = set()
        self.busy = asyncio.Event()

    def offer(self, who: Address) -> Any:
        async def give(spec: Spec, server: Address) -> Contribution:
            assert server == spec.server
            if who in self.refusing:
                raise Declined("budget", "nothing left of this requester's budget")
            return Contribution(self.inputs[who])

        return give

    async def send(self, to: Address, body: bytes) -> bytes:
        self.calls[to] += 1
        if sum(self.calls.values()) == 15:
            self.busy.set()
        if self.calls[to] > self.dead_from.get(to, 99):
            raise Unreachable("gone")
        if to in self.rubbish:
            return b"\x00rubbish"
        return await self.desks[to].answer(SERVER.address, body)

    def spec(self, **changes: Any) -> Spec:
        plain: dict[str, Any] = {
            "length": 700, "largest": 30_000, "nonce": bytes(32), "beacon": bytes(32), "purpose": bytes(32),
            "expires_s": 5000,
        }  # fmt: skip
        return plan(SERVER.address, tuple(self.keys), **{**plain, **changes})

    def expected(self, without: set[Address]) -> Any:
        return sum(values for who, values in self.inputs.items() if who not in without)


def driver(vaults: Vaults) -> Aggregation:
    return Aggregation(SERVER, vaults.send, phase_s=120, clock=lambda: NOW_S)


def test_a_sum_over_calls_is_exact_and_every_member_checks_it():
    """Ten vaults; one can't be reached, one dies midway, one refuses: the others' sum, and nobody finds fault."""
    vaults = Vaults(10)
    first, second, third, *_ = vaults.keys
    vaults.dead_from = {first: 0, second: 3}
    vaults.refusing = {third}
    summed, checks = asyncio.run(driver(vaults).checked_sum(vaults.spec()))
    assert (summed.values == vaults.expected({first, third})).all()
    assert {check.code for check in checks.values()} == {""}
    assert len(checks) == 7
    assert summed.gone[third].startswith("budget")
    assert not summed.blamed


def test_too_few_is_no_sum_and_says_who_is_missing():
    """Rubbish from four of ten."""
    vaults = Vaults(10)
    vaults.rubbish = set(list(vaults.keys)[:4])
    with pytest.raises(NoSum, match="6 of 10") as failure:
        asyncio.run(driver(vaults).sum(vaults.spec()))
    assert set(failure.value.failed.gone) == vaults.rubbish


def test_a_vault_is_in_more_sums_after_another_than_it_holds_at_once():
    """The oldest that is over makes place; nobody begins it anew, with other keys."""
    vaults = Vaults(3, 8)
    vaults.dead_from = dict.fromkeys(vaults.keys, 10**6)

    async def main() -> None:
        first = vaults.spec(length=8)
        for at in range(MAX_ROUNDS + 2):
            spec = msgspec.structs.replace(first, nonce=at.to_bytes(32))
            summed, checks = await driver(vaults).checked_sum(spec)
            assert (summed.values == vaults.expected(set())).all()
            assert {check.code for check in checks.values()} == {""}
        with pytest.raises(NoSum, match="0 of 3") as failure:
            await driver(vaults).sum(first)
        assert "has opened what it opens" in str(failure.value.failed.gone)

    asyncio.run(main())


def test_a_killed_requester_goes_on_from_its_journal(tmp_path: Path):
    """The process dies while vectors come in; another with the same journal ends the round."""
    vaults = Vaults(6)
    spec = vaults.spec()

    async def killed() -> None:
        task = asyncio.create_task(driver(vaults).sum(spec, SqliteJournal(tmp_path / "sum.db")))
        await vaults.busy.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def both() -> Any:
        await killed()
        journal = SqliteJournal(tmp_path / "sum.db")
        assert len(journal.load()) >= 6
        return await driver(vaults).sum(spec, journal)

    summed = asyncio.run(both())
    assert (summed.values == vaults.expected(set())).all()


def test_a_desk_answers_nobody_but_the_round_s_server():
    """A stranger's frames, a spec of another server, a frame of no round."""
    vaults = Vaults(3)
    stranger = Key(b"\x31" * 32).address
    who = next(iter(vaults.keys))
    desk = vaults.desks[who]

    async def ask() -> list[Any]:
        await driver(vaults).sum(vaults.spec())
        frames: list[bytes] = []

        async def tap(to: Address, body: bytes) -> bytes:
            frames.append(body)
            return await vaults.send(to, body)

        await Aggregation(SERVER, tap, phase_s=120, clock=lambda: NOW_S).sum(vaults.spec(nonce=b"\x01" * 32))
        said = [to_server(await desk.answer(stranger, frame)) for frame in frames[:6]]
        return [*said, to_server(await desk.answer(stranger, b"\xc1"))]

    codes = [reply.code for reply in asyncio.run(ask())]
    assert set(codes[:6]) <= {"unknown", "server"}
    assert codes[6] == "malformed"


def test_members_find_a_false_sum():
    """The requester publishes another sum than the true one: each member that checks says so."""
    vaults = Vaults(4)
    told: list[Checked] = []
    for who, key in vaults.keys.items():
        vaults.desks[who] = SumDesk(
            key, vaults.offer(who), clock=lambda: NOW_S, found=lambda _, checked: told.append(checked)
        )

    async def send(to: Address, body: bytes) -> bytes:
        try:
            frame = to_checker(body)
        except Malformed:
            return await vaults.send(to, body)
        if isinstance(frame, Published):
            lied = resigned(msgspec.structs.replace(frame.transcript, sum_root=b"\x05" * 32))
            return await vaults.send(to, encode(Published(lied)))
        return await vaults.send(to, body)

    _, checks = asyncio.run(
        Aggregation(SERVER, send, phase_s=120, clock=lambda: NOW_S).checked_sum(vaults.spec())
    )
    assert {check.code for check in checks.values()} == {"opening"}
    assert len(told) == 4


def test_joint_statistics_over_masked_sums():
    """Mean and variance over five vaults that show nobody their rows."""
    asked = Moments((Range("age", 0, 120_000_000),))
    vaults = Vaults(5)
    draw = np.random.default_rng(2)
    rows = {who: draw.uniform(1, 99, 30 + i) for i, who in enumerate(vaults.keys)}
    vaults.inputs = {who: contribution(asked, {"age": ages}) for who, ages in rows.items()}
    spec = vaults.spec(length=length(asked), largest=largest(1 << 20), purpose=purpose(asked))
    summed = asyncio.run(driver(vaults).sum(spec))
    answer = found(asked, summed.values)
    assert isinstance(answer, MomentsFound)
    pooled = np.concatenate(list(rows.values()))
    assert abs(answer.columns[0].mean - pooled.mean()) < 1e-4
    assert abs(answer.columns[0].variance - pooled.var()) < 1e-2
