"""Answers of language models: asked in integers, drawn with keyed noise, checked by drawing again.

An answer is a function of weights, prompt and seed: every token maximises logit plus noise that only seed and
position decide. So a validator with the weights can re-draw each token from one prefill, and another provider can go on
where one died. The room refuses requests whose answer would depend on anything else.
"""

from clusterai.work.inference.check import check, judge_answer, spell
from clusterai.work.inference.price import Price, cap_wei, cost_wei, recount
from clusterai.work.inference.spec import (
    NO_LOGPROBS,
    FinishReason,
    Generation,
    OutOfRange,
    Sampling,
    Usage,
    choice_seed,
    decode_generation,
    ppm,
    resume,
)
from clusterai.work.kind import Kind

KIND = Kind(
    name="inference",
    decode=decode_generation,
    cap_wei=lambda generation, input_wei, output_wei: cap_wei(generation, Price(input_wei, output_wei)),
    recount=lambda generation, answer: (
        recount(generation, answer).prompt_tokens,
        recount(generation, answer).answer_tokens,
    ),
    resume=resume,
    check=check,
    judge=judge_answer,
    serves="chat",
    engines="clusterai.work.inference.adapters.load",
    spell=spell,
)

__all__ = [
    "KIND",
    "NO_LOGPROBS",
    "FinishReason",
    "Generation",
    "OutOfRange",
    "Price",
    "Sampling",
    "Usage",
    "cap_wei",
    "check",
    "choice_seed",
    "cost_wei",
    "decode_generation",
    "ppm",
    "recount",
    "resume",
]
