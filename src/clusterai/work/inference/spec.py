"""What is asked for: a generation, in integers only.

The canonical bytes of a `Generation` are what an order signs and what an audit replays, so no float may
enter: two machines must never disagree about `0.7`. Fractions are parts per million, biases thousandths.
Everything that the answer depends on is in here; what isn't in here must not influence a token.
"""

import msgspec
from blake3 import blake3

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest
from clusterai.work.request import MOST_TOKENS, FinishReason, OutOfRange, Usage, within

MILLION = 1_000_000
U64 = 2**64
MOST_BIASES = 1024
MOST_STOPS = 16
MOST_STOP_BYTES = 256
MOST_SCHEMA_BYTES = 65_536
MOST_LOGPROBS = 20
NO_LOGPROBS = -1


class Sampling(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How tokens are drawn. The defaults are the model's own distribution, undistorted.

    Attributes:
        temperature_ppm: 0 draws the likeliest token; 1_000_000 is temperature 1.
        top_p_ppm: the smallest set of likeliest tokens with at least this mass; one token always stays.
        top_k: only the k likeliest; 0 is off.
        min_p_ppm: only tokens at least this likely relative to the likeliest; 0 is off.
        presence_ppm: subtracted from the logit of each token that the answer already has.
        frequency_ppm: subtracted once for each time that the answer has it.
        repetition_ppm: divides (or multiplies, when negative) logits of tokens in prompt or answer.
        logit_bias: (token, thousandths), sorted by token, each token once.
        seed: keys the noise; the same seed, prompt and weights give the same tokens.
        schema: JSON schema that the answer's text must satisfy, or None.
    """

    temperature_ppm: int = MILLION
    top_p_ppm: int = MILLION
    top_k: int = 0
    min_p_ppm: int = 0
    presence_ppm: int = 0
    frequency_ppm: int = 0
    repetition_ppm: int = MILLION
    logit_bias: tuple[tuple[int, int], ...] = ()
    seed: int = 0
    schema: str | None = None

    def __post_init__(self) -> None:
        within("temperature_ppm", self.temperature_ppm, 0, 2 * MILLION)
        within("top_p_ppm", self.top_p_ppm, 0, MILLION)
        within("top_k", self.top_k, 0, MOST_TOKENS)
        within("min_p_ppm", self.min_p_ppm, 0, MILLION)
        within("presence_ppm", self.presence_ppm, -2 * MILLION, 2 * MILLION)
        within("frequency_ppm", self.frequency_ppm, -2 * MILLION, 2 * MILLION)
        within("repetition_ppm", self.repetition_ppm, 10_000, 10 * MILLION)
        within("number of logit_bias entries", len(self.logit_bias), 0, MOST_BIASES)
        before = -1
        for token, milli in self.logit_bias:
            within("logit_bias token", token, before + 1, MOST_TOKENS)
            within("logit_bias", milli, -100_000, 100_000)
            before = token
        within("seed", self.seed, 0, U64 - 1)
        if self.schema is not None:
            within(
                "length of schema in bytes",
                len(self.schema.encode()),
                1,
                MOST_SCHEMA_BYTES,
            )


class Generation(
    msgspec.Struct,
    frozen=True,
    array_like=True,
    forbid_unknown_fields=True,
    tag="generation.1",
):
    """One answer asked of one model.

    Attributes:
        model: content address of the weights, 32 bytes.
        prompt: token ids, already through the chat template.
        max_tokens: the answer ends with reason `length` when it has this many, `so_far` included.
        stop: the answer ends with reason `stop` when its text holds one of these.
        logprobs: how many alternatives to report with each token; 0 only the token's own, -1 nothing.
        so_far: the answer's first tokens, which another provider already sent before it went away. They are
            prefilled like the prompt, and the next token is drawn at position len(so_far).
    """

    model: bytes
    prompt: tuple[int, ...]
    sampling: Sampling = Sampling()
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    logprobs: int = NO_LOGPROBS
    so_far: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        within("length of model address in bytes", len(self.model), 32, 32)
        within("number of prompt tokens", len(self.prompt), 1, MOST_TOKENS)
        within("least prompt token", min(self.prompt), 0, MOST_TOKENS)
        within("greatest prompt token", max(self.prompt), 0, MOST_TOKENS)
        within("max_tokens", self.max_tokens, 1, MOST_TOKENS)
        within("number of tokens so far", len(self.so_far), 0, self.max_tokens - 1)
        if self.so_far:
            within("least token so far", min(self.so_far), 0, MOST_TOKENS)
            within("greatest token so far", max(self.so_far), 0, MOST_TOKENS)
        within("number of stop strings", len(self.stop), 0, MOST_STOPS)
        for stop in self.stop:
            within(
                "length of a stop string in bytes",
                len(stop.encode()),
                1,
                MOST_STOP_BYTES,
            )
        within("logprobs", self.logprobs, NO_LOGPROBS, MOST_LOGPROBS)

    def canonical(self) -> bytes:
        """What travels beside an order and what its digest covers."""
        return canonical.encode(self)

    def digest(self) -> Digest:
        return canonical.digest(self)


def resume(generation: Generation, tokens: tuple[int, ...]) -> Generation | None:
    """The rest of an answer of which `tokens` (after `so_far`) are already there; None when that is all of it."""
    so_far = generation.so_far + tokens
    if len(so_far) >= generation.max_tokens:
        return None
    return msgspec.structs.replace(generation, so_far=so_far)


def decode_generation(raw: bytes) -> Generation:
    """Read a stranger's request.

    Raises:
        canonical.Malformed: too long, not a generation, out of range, or not in canonical form.
    """
    return canonical.decode(raw, Generation)


def choice_seed(seed: int, choice: int) -> int:
    """The seed of choice `choice` of one request (`n` > 1). Choice 0 keeps the seed itself."""
    if choice == 0:
        return seed
    key = seed.to_bytes(8, "little") + choice.to_bytes(8, "little")
    return int.from_bytes(blake3(key, derive_key_context="clusterai choice seed 1").digest(8), "little")


def ppm(value: float) -> int:
    """A fraction as parts per million, rounded to the nearest: the gateway's door from JSON numbers."""
    return round(value * MILLION)


__all__ = [
    "MILLION",
    "MOST_LOGPROBS",
    "MOST_TOKENS",
    "NO_LOGPROBS",
    "U64",
    "FinishReason",
    "Generation",
    "OutOfRange",
    "Sampling",
    "Usage",
    "choice_seed",
    "decode_generation",
    "ppm",
    "resume",
]
