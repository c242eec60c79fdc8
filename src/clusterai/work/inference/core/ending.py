"""When an answer is over. The engine asks after each token; the audit asks again, and a receipt that disagrees is wrong."""

from clusterai.models.core.text import TextStream, Vocabulary
from clusterai.work.inference.spec import FinishReason, Generation


class Ending:
    """Follows one answer.

    A token that ends the answer belongs to it, whether it is the model's end token or completes a stop string: so a
    cut answer can't be passed off as a finished one.
    """

    def __init__(self, generation: Generation, vocabulary: Vocabulary, context: int) -> None:
        self._ends = vocabulary.ends
        self._text = TextStream(vocabulary, generation.stop) if generation.stop else None
        self._room = min(generation.max_tokens, context - len(generation.prompt))
        self._size = 0
        for token in generation.so_far:
            self.push(token)

    def push(self, token: int) -> FinishReason | None:
        """The reason to end after `token`, or None to go on."""
        self._size += 1
        if token in self._ends:
            return "stop"
        if self._text is not None:
            self._text.push(token)
            if self._text.stopped:
                return "stop"
        return "length" if self._size >= self._room else None


def why_ended(
    generation: Generation,
    answer: tuple[int, ...],
    vocabulary: Vocabulary,
    context: int,
) -> FinishReason | None:
    """The only reason that an honest receipt for these new tokens can state.

    `cancelled` where the tokens could go on: only the client may cut there. None where they run on past an end.
    """
    ending = Ending(generation, vocabulary, context)
    for at, token in enumerate(answer):
        reason = ending.push(token)
        if reason is not None:
            return reason if at == len(answer) - 1 else None
    return "cancelled"
