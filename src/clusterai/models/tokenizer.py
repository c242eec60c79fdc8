"""Text to tokens and back, built from the GGUF's own metadata: no other file, no network.

The gateway tokenizes, so this must not need an engine. `tokenizers` (Rust, light) does the work; what is written
here is which pre-tokenizer each kind of GGUF means. Unknown kinds are refused by name: a wrong one would give prompts that
the model half understands.

Source of the patterns: llama.cpp, src/llama-vocab.cpp; the published tokenizer.json of each family.
"""

from functools import cached_property

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from clusterai.models.core.gguf import BadGguf, Gguf
from clusterai.models.core.text import Vocabulary

GUARD = "\ue000"
"""Stands inside a control token's name that a user wrote, so that it stays text. It is never encoded itself."""

_CONTROL = 3
_USER_DEFINED = 4
_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>", "<eos>", "</s>")

_CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


class UnknownTokenizer(ValueError):
    """This build can't tokenize for models of this kind; use a model whose kind is one of those named."""

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"tokenizer kind {kind!r} is not supported; use a model whose kind is {', '.join(KINDS)}"
        )


class ModelTokenizer:
    """One model's tokenizer.

    Attributes:
        kind: the GGUF's name for the pre-tokenizer.
        inner: the `tokenizers.Tokenizer`, for grammar libraries that want its JSON.
    """

    def __init__(self, gguf: Gguf) -> None:
        if gguf.text("tokenizer.ggml.model") != "gpt2":
            raise UnknownTokenizer(gguf.text("tokenizer.ggml.model"))
        self.kind = gguf.text("tokenizer.ggml.pre", "default")
        if self.kind not in KINDS:
            raise UnknownTokenizer(self.kind)
        self._tokens: list[str] = gguf.metadata.get("tokenizer.ggml.tokens", [])
        merges: list[str] = gguf.metadata.get("tokenizer.ggml.merges", [])
        types: list[int] = gguf.metadata.get("tokenizer.ggml.token_type", [1] * len(self._tokens))
        if not self._tokens or not merges or len(types) != len(self._tokens):
            raise BadGguf("the tokenizer's tables are missing or of unequal length; convert the model again")
        control = [i for i, kind in enumerate(types) if kind == _CONTROL]
        added = control + [i for i, kind in enumerate(types) if kind == _USER_DEFINED]
        self._control = frozenset(control)
        self._names = sorted((self._tokens[i] for i in control), key=len, reverse=True)
        self.inner = _build(
            self.kind, self._tokens, merges, [self._tokens[i] for i in added], frozenset(control)
        )
        named = {gguf.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")}
        self._ends = frozenset(i for i in control if i in named or self._tokens[i] in _ENDS)
        start = gguf.metadata.get("tokenizer.ggml.bos_token_id")
        self._start = (
            (start,) if gguf.metadata.get("tokenizer.ggml.add_bos_token") and isinstance(start, int) else ()
        )

    def encode(self, text: str, *, start: bool = False) -> tuple[int, ...]:
        """Tokens of `text`; control tokens written in it are control tokens, unless `guarded`."""
        tokens: list[int] = list(self._start) if start else []
        for part in text.split(GUARD):
            tokens += self.inner.encode(part, add_special_tokens=False).ids
        return tuple(tokens)

    def guarded(self, text: str) -> str:
        """`text` of a user with its control tokens disarmed: "<|im_end|>" will be read as those ten characters."""
        text = text.replace(GUARD, "")
        for name in self._names:
            if name in text:
                text = text.replace(name, name[0] + GUARD + name[1:])
        return text

    @cached_property
    def vocabulary(self) -> Vocabulary:
        to_byte = {character: byte for byte, character in enumerate(_byte_characters())}
        pieces = [
            token.encode("utf-8", "surrogateescape") if i in self._control else _bytes_of(token, to_byte)
            for i, token in enumerate(self._tokens)
        ]
        return Vocabulary(tuple(pieces), self._control, self._ends)


def _build(
    kind: str, tokens: list[str], merges: list[str], added: list[str], control: frozenset[int]
) -> Tokenizer:
    vocabulary = {token: i for i, token in enumerate(tokens)}
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=kind in _WHOLE_WORDS))
    tokenizer.pre_tokenizer = KINDS[kind]
    tokenizer.decoder = decoders.ByteLevel()
    if kind.startswith("qwen"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken(t, special=vocabulary[t] in control, normalized=False) for t in added])
    return tokenizer


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
_SMOLLM = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2])

KINDS: dict[str, pre_tokenizers.PreTokenizer] = {
    "smollm": _SMOLLM,
    "gpt-2": _GPT2,
    "llama-bpe": _split(_CL100K % 3),
    "llama3": _split(_CL100K % 3),
    "qwen2": _split(_CL100K % 1),
}
_WHOLE_WORDS = frozenset({"llama-bpe", "llama3"})


def _byte_characters() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary. Source: GPT-2, encoder.py."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]


def _bytes_of(token: str, to_byte: dict[str, int]) -> bytes:
    if all(character in to_byte for character in token):
        return bytes(to_byte[character] for character in token)
    return token.encode("utf-8", "surrogateescape")
