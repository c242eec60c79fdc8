"""What is known about a model: its content address, and the card that says how to use, price and audit it."""

from typing import Annotated

import msgspec
from msgspec import Meta

from clusterai.protocol import canonical
from clusterai.protocol.ids import Digest

Wei = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,127}$")]
DigestBytes = Annotated[bytes, Meta(min_length=32, max_length=32)]


class File(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A file by its role in the model (not by what somebody called it), size in bytes, and BLAKE3."""

    name: Annotated[str, Meta(max_length=128)]
    size: Annotated[int, Meta(ge=0, le=2**50)]
    digest: DigestBytes


class Manifest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="model.1"):
    """All files of a model, sorted by name. Its digest is the model's address: other weights, other model."""

    files: Annotated[tuple[File, ...], Meta(min_length=1, max_length=1024)]

    def __post_init__(self) -> None:
        names = [file.name for file in self.files]
        if names != sorted(set(names)):
            raise ValueError("files of a manifest are sorted by name, each once")

    def address(self) -> Digest:
        return canonical.digest(self)


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What honest and dishonest gaps look like for this model: the constants of the audit's sequential test.

    Gaps are in logits (see `sampler.gap`), in ten-thousandths so that the card holds no floats. Bin i holds gaps from
    edges[i-1] (exclusive) to edges[i] (inclusive); the first bin is gap <= edges[0], the last one all above.

    Attributes:
        edges_e4: rising edges; n edges make n + 1 bins.
        honest_ppb: how often honest tokens fall in each bin, in billionths: upper bounds, so they needn't sum to one.
        fraud_ppm: how often the tokens of the mildest weights that must be caught do, in millionths.
        edited_ppm: how often a token that somebody put in by hand does.
        honest_tokens: how many tokens that was measured on.
        source: what was run to measure it.
    """

    edges_e4: tuple[int, ...]
    honest_ppb: tuple[int, ...]
    fraud_ppm: tuple[int, ...]
    edited_ppm: tuple[int, ...]
    honest_tokens: int
    source: str

    def __post_init__(self) -> None:
        if list(self.edges_e4) != sorted(set(self.edges_e4)):
            raise ValueError("edges_e4 must rise")
        shares = {
            "honest_ppb": self.honest_ppb,
            "fraud_ppm": self.fraud_ppm,
            "edited_ppm": self.edited_ppm,
        }
        for name, share in shares.items():
            if len(share) != len(self.edges_e4) + 1 or min(share) < 1:
                raise ValueError(
                    f"{name} needs one share of at least 1 per bin, {len(self.edges_e4) + 1} in all"
                )


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model's card. `model` is the address as 0x hex, so that the JSON file can be read and diffed by people.

    Attributes:
        kind: `chat` (GGUF of a language model), `embedding`, or `sealed` (for encrypted inputs; `context` is how many one request takes).
        context: most tokens of prompt and answer together.
        vocabulary: width of the logits.
        tokenizer: the pre-tokenizer's kind.
        temperature_ppm, top_p_ppm: what its authors recommend; a request that names none of its own gets these.
        input_wei, output_wei: suggested price per token, in the token's smallest unit.
        calibration: None until `scripts/calibrate.py` has run; such a model can't be audited, and is labelled so.
    """

    name: Name
    model: Annotated[str, Meta(pattern="^0x[0-9a-f]{64}$")]
    licence: str
    kind: str = "chat"
    architecture: str = ""
    context: int = 0
    vocabulary: int = 0
    tokenizer: str = ""
    template: str = ""
    temperature_ppm: Annotated[int, Meta(ge=0, le=2_000_000)] = 1_000_000
    top_p_ppm: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000_000
    input_wei: Wei = 100
    output_wei: Wei = 400
    calibration: Calibration | None = None

    def address(self) -> Digest:
        return Digest(bytes.fromhex(self.model[2:]))


def read_card(raw: bytes) -> Card:
    """A card's JSON, strictly."""
    return msgspec.json.decode(raw, type=Card)


def write_card(card: Card) -> bytes:
    return msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n"
