"""Vectors for texts: asked in tokens, answered in fixed point, checked by computing them again.

A vector is a function of weights and text alone, so a check needs no noise and no history, and what a provider didn't finish
is done again elsewhere from the start. The room refuses texts longer than the model reads: a vector of half a text would look
like any other.
"""

from clusterai.work.embedding.check import check, judge_answer, spell
from clusterai.work.embedding.core.judge import wrong
from clusterai.work.embedding.price import cap_wei, recount
from clusterai.work.embedding.spec import Embedding, decode_embedding, packed, vectors
from clusterai.work.kind import Kind
from clusterai.work.request import OutOfRange

KIND = Kind(
    name="embedding",
    decode=decode_embedding,
    cap_wei=cap_wei,
    recount=recount,
    check=check,
    judge=judge_answer,
    wrong=wrong,
    serves="embedding",
    engines="clusterai.work.embedding.adapters.openvino_engine",
    spell=spell,
    gap_unit="tolerances",
)

__all__ = ["KIND", "Embedding", "OutOfRange", "packed", "vectors"]
