"""A validator's own engines and checker, with the second kind of work: nothing here knows what a vector is."""

import asyncio
from pathlib import Path

import pytest

from clusterai.models import ModelStore
from clusterai.protocol.ids import Address, Digest
from clusterai.protocol.messages import Answer, Transcript
from clusterai.protocol.statements import Order
from clusterai.validator.adapters.checker import Checker
from clusterai.validator.adapters.engines import Engines
from clusterai.validator.core.words import Check, Checked, CheckFailed
from clusterai.work import KINDS
from clusterai.work.embedding import Embedding
from clusterai.work.engine import TokenEvent

pytestmark = pytest.mark.model


def check_of(request: Embedding, tokens: tuple[int, ...], index: int) -> Check:
    order = Order(
        Address(bytes(20)),
        Address(bytes(20)),
        Digest(request.model),
        request.digest(),
        bytes(32),
        1,
        0,
        9,
        9,
        bytes(32),
    )
    transcript = Transcript(order, bytes(65), "embedding", request.canonical(), Answer(tokens, "stop"))
    return Check(Address(bytes(20)), 1, index, Digest(bytes(32)), transcript, Digest(bytes(32)))


def test_honest_vectors_pass_and_an_edited_one_convicts(tmp_path: Path):
    """The engine is found by the model's card, the check by the transcript's kind."""
    model = Digest(ModelStore(tmp_path).get("all-minilm-l6-v2").address)
    told: list[Checked | CheckFailed] = []

    async def main() -> None:
        engines = Engines(tmp_path, 1, 1 << 20, lambda doing, part: None)
        engine = await engines.of(model)
        request = Embedding(model, ((101, 4937, 102), (101, 3899, 2003, 102)), 384)
        tokens = tuple([it.token async for it in engine.submit(request) if isinstance(it, TokenEvent)])
        both = asyncio.Event()

        def hear(event: Checked | CheckFailed) -> None:
            told.append(event)
            if len(told) == 2:
                both.set()

        checker = Checker(KINDS, engines, hear)
        checker.ask(check_of(request, tokens, 0))
        checker.ask(check_of(request, (*tokens[:9], tokens[9] + 300, *tokens[10:]), 1))
        running = asyncio.create_task(checker.run())
        await both.wait()
        running.cancel()
        await engines.close()

    asyncio.run(main())
    honest, edited = told
    assert isinstance(honest, Checked)
    assert isinstance(edited, Checked)
    assert honest.findings.weight_milli == -2000
    assert edited.findings.weight_milli > 27_632
