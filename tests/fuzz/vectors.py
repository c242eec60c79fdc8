"""Where fuzzing begins: the values of the specification's test vectors."""

import json
from pathlib import Path

VECTORS = Path(__file__).resolve().parents[1] / "vectors"


def values_of(file: str, section: str) -> list[bytes]:
    return [bytes.fromhex(it["bytes"][2:]) for it in entries(file, section)]


def entries(file: str, section: str) -> list[dict[str, str]]:
    """The section's vectors: of each, `type` and `bytes` are text."""
    return json.loads((VECTORS / file).read_text())[section]
