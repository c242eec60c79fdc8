"""What a machine has asked for by name: not twice at once, and again when the answer changed nothing.

    due(key) ── yes, ask ──> under way ──answered(key)──> due again in RETRY_S, should the world still call for it
                                └ forget(…): what it was about is over

Losing it costs a question asked once more: whoever answers must tolerate that anyway (`runtime/machine.py`, rule 2).
"""

RETRY_S = 5.0


class Asking:
    """Keys end with the name of what they are about, so that all of it can be forgotten at once."""

    def __init__(self) -> None:
        self._due_s: dict[str, float] = {}

    def due(self, key: str, now_s: float, again_s: float = float("inf")) -> bool:
        """Whether to ask now; from then on it is under way, at most for `again_s` seconds without an answer."""
        if now_s < self._due_s.get(key, 0.0):
            return False
        self._due_s[key] = now_s + again_s
        return True

    def answered(self, key: str, now_s: float) -> None:
        """An answer came, whichever: if its effect never shows, it may be asked for again."""
        if key in self._due_s:
            self._due_s[key] = now_s + RETRY_S

    def at(self, key: str, due_s: float) -> float:
        """When something is due for which nobody is asked; the first call decides."""
        return self._due_s.setdefault(key, due_s)

    def forget(self, about: str) -> None:
        for key in [key for key in self._due_s if key.endswith(about)]:
            del self._due_s[key]
