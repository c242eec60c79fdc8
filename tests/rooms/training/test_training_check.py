"""What a drawn audit of a round's order finds: a vault that is paid for an answer which its signed use doesn't carry is convicted."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.audit.core.sequential import BOUND_MILLI
from clusterai.protocol import canonical
from clusterai.protocol.ids import ZERO_ADDRESS, ZERO_DIGEST, Address
from clusterai.protocol.messages import Answer, Transcript
from clusterai.protocol.statements import Order
from clusterai.protocol.vaults import SignedUse, Use, dataset_id, subject
from clusterai.validator.adapters.checker import Checker
from clusterai.validator.adapters.engines import Engines
from clusterai.validator.core.words import Check, Checked, CheckFailed
from clusterai.work import KINDS
from clusterai.work.packed import tokens_of
from clusterai.work.training import KIND, Round
from clusterai.work.training.spec import Done, Sorry

WHO = Address(b"w" * 20)
DATASET = dataset_id(Address(b"O" * 20), "digits")
VECTOR = b"v" * 32
ROUND = Round(
    subject(DATASET, KIND.name), b"g" * 32, b"r" * 32, 3, "train", "", b"m" * 32, 2_000_000, WHO, bytes(65)
)
USE = Use(DATASET, 7, ROUND.grant, WHO, ROUND.digest, 1_500_000, 3_000_000, 4_000_000, VECTOR, 1_800_000_000)
DONE = Done(ROUND.digest, VECTOR, 650, (), False, 1_500_000, canonical.encode(SignedUse(USE, bytes(65))))


def using(**changes: Any) -> Done:
    use = msgspec.structs.replace(USE, **changes)
    return msgspec.structs.replace(DONE, use=canonical.encode(SignedUse(use, bytes(65))))


async def looked_at(folder: Path, tokens: tuple[int, ...], reason: str = "stop") -> Checked | CheckFailed:
    """By a validator's checker, as it is for a receipt that was drawn."""
    told: asyncio.Future[Checked | CheckFailed] = asyncio.get_running_loop().create_future()
    checker = Checker(KINDS, Engines(folder, 1, 1 << 20, lambda doing, part: None), told.set_result)
    order = Order(
        bytes(20), bytes(20), ROUND.model, ROUND.digest, bytes(32), 2, 7, 10_000, 1_800_000_000, bytes(32)
    )
    transcript = Transcript(order, bytes(65), KIND.name, ROUND.canonical(), Answer(tokens, reason))
    checker.ask(Check(ZERO_ADDRESS, 1, 0, ZERO_DIGEST, transcript, ZERO_DIGEST))
    running = asyncio.create_task(checker.run())
    try:
        return await told
    finally:
        running.cancel()


def weight(folder: Path, done: Done | Sorry, reason: str = "stop") -> int:
    found = asyncio.run(looked_at(folder, tuple(tokens_of(done.canonical())), reason))
    assert isinstance(found, Checked), found
    return found.findings.weight_milli


def test_honest_rounds_are_no_evidence(tmp_path: Path) -> None:
    """An answer whose use carries it speaks for its vault, and so does one that says why nothing was done."""
    assert weight(tmp_path, DONE) < 0
    assert weight(tmp_path, Sorry(ROUND.digest, "budget", "ε is spent")) < 0


@pytest.mark.parametrize(
    ("false", "says"),
    [
        (using(dataset=b"\x09" * 32), "data set"),
        (using(grant=b"\x09" * 32), "grant"),
        (using(requester=b"\x09" * 20), "requester"),
        (using(order=b"\x09" * 32), "order"),
        (using(epsilon_micro=0), "ε"),
        (using(result=b"\x09" * 32), "vector"),
        (using(grant_spent_micro=5), "sums"),
        (using(total_spent_micro=2_999_999), "sums"),
        (msgspec.structs.replace(using(result=ZERO_DIGEST), commitment=ZERO_DIGEST), "nothing left"),
        (msgspec.structs.replace(DONE, use=b""), "can't be read"),
        (msgspec.structs.replace(DONE, order=b"\x09" * 32), "another order"),
        (msgspec.structs.replace(DONE, epsilon_micro=2_000_001), "more than the order allows"),
        (msgspec.structs.replace(DONE, metrics=("loss", "accuracy")), "out of order"),
    ],
)
def test_a_vault_that_sells_what_no_use_carries_is_convicted(tmp_path: Path, false: Done, says: str) -> None:
    """Another order's use sold twice, ε that the log doesn't have, a sum over another vector: the gateway doesn't pay, and one drawn receipt convicts."""
    tokens = tuple(tokens_of(false.canonical()))
    assert KIND.wrong is not None
    assert says in (KIND.wrong(ROUND, tokens, "stop") or "")
    assert weight(tmp_path, false) > BOUND_MILLI


def test_nonsense_and_half_an_answer_convict(tmp_path: Path) -> None:
    """Whatever can't be an answer, and one that says it was cut short."""
    for tokens in ((), (3, 0xFFFFFF), tuple(tokens_of(b"nonsense"))):
        found = asyncio.run(looked_at(tmp_path, tokens))
        assert isinstance(found, Checked)
        assert found.findings.weight_milli > BOUND_MILLI
        assert KIND.recount(ROUND, tokens) == (0, 0)
    assert weight(tmp_path, DONE, "length") > BOUND_MILLI


def test_the_evidence_is_shown() -> None:
    """`audit replay` draws one bar for a round, and says it in one word a token."""
    assert KIND.judge is not None
    assert KIND.spell is not None
    tokens = tuple(tokens_of(DONE.canonical()))
    judge = KIND.judge

    async def shown() -> tuple[int, list[float]]:
        findings, gaps = await judge(None, ROUND, tokens, "stop")
        return findings.matches, gaps

    assert asyncio.run(shown()) == (1, [0.0])
    assert KIND.spell(None, tokens)[0] == f"{tokens[0]} "
