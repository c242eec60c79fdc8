"""One target under libFuzzer, in a process of its own: `run.py` starts it with atheris on the path."""

import importlib
import sys
from typing import Any

import msgspec

from tests.fuzz.mutations import mutated

CODECS: dict[str, Any] = {
    **dict.fromkeys(("frames", "statements", "canonical_bytes", "machines", "leased_work"), msgspec.msgpack),
    **dict.fromkeys(("json_rpc", "payment_header", "relayed_pulses"), msgspec.json),
}
"""What targets read that is written in a general format."""


def main(name: str, arguments: list[str]) -> None:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["clusterai", "x402", "tests.fuzz.targets"]):
        target = importlib.import_module(f"tests.fuzz.targets.{name}")

    def once(data: bytes) -> None:
        target.once(data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        return mutated(data, seed, lambda raw: atheris.Mutate(raw, most), CODECS[name])[:most]

    more = {"custom_mutator": mutate} if name in CODECS else {}
    atheris.Setup([name, *arguments], once, **more)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
