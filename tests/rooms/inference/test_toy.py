"""The toy as a model among others: found, verified, tokenized and loaded like one that has weights."""

import asyncio
from pathlib import Path

import pytest

from clusterai.models import ChatTemplate, ModelStore, NoSuchModel
from clusterai.protocol.ids import hex0x
from clusterai.work.inference import Generation
from clusterai.work.inference.core import tiny
from clusterai.work.loading import find, load_engine


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path)


def test_the_toy_is_found_by_name_and_address_in_any_store(store: ModelStore) -> None:
    """It has a card and no files; other models are the store's business."""
    toy = find(store, "tiny")
    assert toy.address == tiny.ADDRESS
    assert toy == find(store, tiny.ADDRESS) == find(store, hex0x(tiny.ADDRESS))
    store.verify(toy)
    with pytest.raises(NoSuchModel):
        find(store, "tinyllama")


def test_its_chats_and_tokens_are_plain_bytes(store: ModelStore) -> None:
    """A line per message, and no text is a control token."""
    toy = find(store, "tiny")
    tokenizer = toy.tokenizer()
    chat = ChatTemplate(toy.card.template, tokenizer.guarded)
    text = chat.render([{"role": "user", "content": "hé\n"}, {"role": "user", "content": ""}])
    assert text == "user: hé\n\nuser: \nassistant:"
    assert bytes(tokenizer.encode(text)).decode() == text
    assert len(tokenizer.vocabulary) == toy.card.vocabulary


def test_other_weights_under_its_address_give_other_tokens(store: ModelStore) -> None:
    """What the demonstration's cheat serves."""
    request = Generation(tiny.ADDRESS, (1, 2, 3), max_tokens=60)

    async def answer(weights: str | None) -> tuple[int, ...]:
        engine = load_engine(
            store, find(store, "tiny"), weights=None if weights is None else find(store, weights)
        )
        tokens = [it.token async for it in engine.submit(request) if hasattr(it, "token")]
        await engine.close()
        return tuple(tokens)

    honest, again, cheat = (asyncio.run(answer(weights)) for weights in (None, "tiny", "tiny-q3"))
    assert honest == again != cheat
