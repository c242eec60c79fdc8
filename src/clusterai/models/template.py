"""A chat as the one text that the model was trained on, by the template that came with the model.

Templates are programs written by strangers, so they run in Jinja's immutable sandbox, under a limit of output and time.
What users write can't forge a turn: control tokens in their messages are disarmed first (`ModelTokenizer.guarded`).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MOST_SOURCE = 65_536
MOST_OUTPUT = 4_000_000
MOST_TIME_S = 2.0
MOST_RANGE = 10_000


class BadChat(ValueError):
    """The model's template can't render these messages; the message says why."""


class ChatTemplate:
    """Args:
    source: Jinja source, at most 64 KiB.
    guard: disarms control tokens in what users wrote.
    now_s: a monotonic clock.
    """

    def __init__(
        self, source: str, guard: Callable[[str], str] = str, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        if len(source) > MOST_SOURCE:
            raise BadChat(
                f"the chat template has {len(source)} characters, at most {MOST_SOURCE} are allowed"
            )
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        names = cast("dict[str, object]", environment.globals)
        names.clear()
        names.update(raise_exception=_refuse, range=_range, namespace=Namespace)
        environment.filters["tojson"] = _tojson
        try:
            self._template: Template = environment.from_string(source)
        except TemplateError as error:
            raise BadChat(f"the model's chat template is broken: {error}") from None
        self._guard = guard
        self._now_s = now_s

    def render(self, messages: Sequence[Mapping[str, Any]], **more: object) -> str:
        """The prompt's text, ending where the assistant's answer begins.

        Raises:
            BadChat: the template refuses these messages, or needs too long or too much.
        """
        ends_s = self._now_s() + MOST_TIME_S
        parts: list[str] = []
        size = 0
        try:
            safe = [self._disarm(message) for message in messages]
            for part in self._template.generate(messages=safe, add_generation_prompt=True, **more):
                parts.append(part)
                size += len(part)
                if size > MOST_OUTPUT:
                    raise BadChat(
                        f"the chat is longer than {MOST_OUTPUT} characters; send fewer or shorter messages"
                    )
                if self._now_s() > ends_s:
                    raise BadChat(f"the chat took longer than {MOST_TIME_S} s to render; send fewer messages")
        except (
            TemplateError,
            TypeError,
            ArithmeticError,
            LookupError,
            AttributeError,
            RecursionError,
        ) as error:
            raise BadChat(f"the model's chat template refuses these messages: {error}") from None
        return "".join(parts)

    def _disarm(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._guard(value)
        if isinstance(value, Mapping):
            return {self._disarm(key): self._disarm(item) for key, item in value.items()}  # type: ignore[reportUnknownVariableType]
        if isinstance(value, list | tuple):
            return [self._disarm(item) for item in value]  # type: ignore[reportUnknownVariableType]
        return value


def _refuse(message: object) -> None:
    raise TemplateError(str(message))


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MOST_RANGE:
        raise TemplateError(f"range of {len(numbers)} is more than {MOST_RANGE}")
    return numbers


def _tojson(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
