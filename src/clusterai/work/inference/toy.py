"""The tiny model as a model among others: a card, no files, and so nothing to store, verify or convert.

`tiny` is the toy itself; `tiny-<anything>` are other weights, as far off as a cheat's, to be served under its address.
"""

from functools import cached_property

from clusterai.models import Card, Manifest, ModelTokenizer, StoredModel, Vocabulary
from clusterai.protocol.ids import Digest, hex0x
from clusterai.work.inference.core import tiny

ALTERED = 2.0
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"


class ToyTokenizer(ModelTokenizer):
    """Bytes in; syllables come only from the model. No text means a control token."""

    def __init__(self) -> None:
        self.kind = "bytes"

    def encode(self, text: str, *, start: bool = False) -> tuple[int, ...]:
        return tiny.encode(text)

    def guarded(self, text: str) -> str:
        return text

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return tiny.vocabulary()


class Toy(StoredModel, frozen=True):
    """`altered`: see `TinyModel`."""

    altered: float = 0.0

    def tokenizer(self) -> ModelTokenizer:
        return ToyTokenizer()


def toy_of(wanted: Digest | str) -> Toy | None:
    """The toy that is meant by a name or an address; None for any other model."""
    altered = isinstance(wanted, str) and wanted.startswith(f"{tiny.NAME}-")
    if not altered and wanted not in (tiny.NAME, tiny.ADDRESS, hex0x(tiny.ADDRESS)):
        return None
    card = Card(
        name=str(wanted) if altered else tiny.NAME,
        model=hex0x(tiny.ADDRESS),
        licence="apache-2.0",
        architecture="toy",
        context=8192,
        vocabulary=tiny.SIZE,
        tokenizer="bytes",
        template=TEMPLATE,
    )
    return Toy(card, Manifest(()), {}, ALTERED if altered else 0.0)
