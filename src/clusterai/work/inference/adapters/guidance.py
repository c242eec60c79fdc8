"""Grammars by llguidance (Rust, MIT): JSON schemas to token masks, 50 us a mask, the same in audit and engine."""

import json
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from clusterai.models.core.text import Vocabulary
from clusterai.models.tokenizer import ModelTokenizer
from clusterai.work.inference.core.grammar import BadSchema, Grammar, GrammarMaker

OPTIONS: dict[str, Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way to write a value. Free white space is where small models lose themselves until max_tokens."""


class _SchemaGrammar:
    def __init__(self, matcher: LLMatcher, words: Vocabulary) -> None:
        self._matcher = matcher
        self._words = words

    def allowed(self, size: int) -> NDArray[np.bool_]:
        matcher = self._matcher
        if not matcher.is_error() and not matcher.is_stopped():
            packed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            mask = np.unpackbits(packed, bitorder="little").view(np.bool_)[:size]
            if mask.any() and not matcher.is_error():
                return mask if len(mask) == size else np.pad(mask, (0, size - len(mask)))
        # Complete; or past llguidance's limits, which count work and not time, so that every auditor meets them, too.
        ends = np.zeros(size, np.bool_)
        ends[[token for token in self._words.ends if token < size]] = True
        return ends

    def push(self, token: int) -> None:
        if token in self._words.ends:
            return
        if not self._matcher.consume_token(token):
            raise ValueError(f"the grammar forbids token {token} here: {self._matcher.get_error()}")


def grammar_maker(tokenizer: ModelTokenizer) -> GrammarMaker:
    """Builds the token tree once (0.2 s); each grammar then takes about a millisecond."""
    words = tokenizer.vocabulary
    inner = LLTokenizer(tokenizer.inner.to_str(), n_vocab=len(words), eos_token=sorted(words.ends))
    compile_: Callable[..., str] = LLMatcher.grammar_from_json_schema

    def make(schema: str) -> Grammar:
        try:
            asked = json.loads(schema)
            if not isinstance(asked, dict):
                raise BadSchema('the schema is not a JSON object; send an object such as {"type": "object"}')
            options = cast("dict[str, object]", asked)
            options.pop("x-guidance", None)
            source = compile_(json.dumps(options), overrides=OPTIONS)
        except (ValueError, RecursionError) as error:
            raise BadSchema(f"the schema can't be read: {error}") from None
        matcher = LLMatcher(inner, source, log_level=0)
        if matcher.is_error():
            raise BadSchema(f"the schema can't be followed: {matcher.get_error()}")
        return _SchemaGrammar(matcher, words)

    return make
