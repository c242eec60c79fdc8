"""One party of threshold CKKS, in a Python of its own: started by `thresholdckks.py`, needs `openfhe` and nothing of ours.

OpenFHE has wheels for Pythons that we don't run on. So this file speaks over its standard input and output: a line of
JSON, then the byte strings whose lengths the line lists. It keeps this party's secret key share, which never leaves it.
"""
# pyright: basic, reportMissingImports=false

import json
import os
import sys
from typing import Any

SCALE_BITS, FIRST_BITS, DEPTH = 50, 60, 1
MOST_PARTS = 4096


def context(openfhe: Any) -> Any:
    """The same for all: sums only, so one level; ring and moduli by the library's table for 128 bits."""
    parameters = openfhe.CCParamsCKKSRNS()
    parameters.SetMultiplicativeDepth(DEPTH)
    parameters.SetScalingModSize(SCALE_BITS)
    parameters.SetFirstModSize(FIRST_BITS)
    parameters.SetSecurityLevel(openfhe.SecurityLevel.HEStd_128_classic)
    made = openfhe.GenCryptoContext(parameters)
    features = openfhe.PKESchemeFeature
    for feature in (
        features.PKE,
        features.KEYSWITCH,
        features.LEVELEDSHE,
        features.ADVANCEDSHE,
        features.MULTIPARTY,
    ):
        made.Enable(feature)
    return made


class Party:
    def __init__(self) -> None:
        import openfhe

        self.he = openfhe
        self.context = context(openfhe)
        self.slots = self.context.GetRingDimension() // 2
        self.secret: Any = None

    def text(self, thing: Any) -> bytes:
        return self.he.Serialize(thing, self.he.BINARY)

    def ciphertext(self, raw: bytes) -> Any:
        return self.he.DeserializeCiphertextString(raw, self.he.BINARY)

    def do(self, asked: dict[str, Any], parts: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        match asked["do"]:
            case "key":
                # The first party makes a key, each further one adds its share to the key of those before it.
                if parts:
                    before = self.he.DeserializePublicKeyString(parts[0], self.he.BINARY)
                    pair = self.context.MultipartyKeyGen(before)
                else:
                    pair = self.context.KeyGen()
                self.secret = pair.secretKey
                return {"slots": self.slots, "ring": 2 * self.slots}, [self.text(pair.publicKey)]
            case "encrypt":
                import struct

                public = self.he.DeserializePublicKeyString(parts[0], self.he.BINARY)
                values = list(struct.unpack(f"<{len(parts[1]) // 8}d", parts[1]))
                made = []
                for start in range(0, len(values), self.slots):
                    plain = self.context.MakeCKKSPackedPlaintext(values[start : start + self.slots])
                    made.append(self.text(self.context.Encrypt(public, plain)))
                return {}, made
            case "add":
                total = [self.ciphertext(raw) for raw in parts[: asked["blocks"]]]
                for start in range(asked["blocks"], len(parts), asked["blocks"]):
                    for at in range(asked["blocks"]):
                        total[at] = self.context.EvalAdd(total[at], self.ciphertext(parts[start + at]))
                return {}, [self.text(block) for block in total]
            case "open":
                decrypt = (
                    self.context.MultipartyDecryptLead
                    if asked["lead"]
                    else self.context.MultipartyDecryptMain
                )
                opened = decrypt([self.ciphertext(raw) for raw in parts], self.secret)
                return {}, [self.text(block) for block in opened]
            case "fuse":
                import struct

                values: list[float] = []
                for at in range(asked["blocks"]):
                    shares = [self.ciphertext(raw) for raw in parts[at :: asked["blocks"]]]
                    plain = self.context.MultipartyDecryptFusion(shares)
                    length = min(self.slots, asked["length"] - len(values))
                    plain.SetLength(length)
                    values.extend(plain.GetRealPackedValue()[:length])
                return {}, [struct.pack(f"<{len(values)}d", *values)]
            case "read":
                try:
                    good = all(self.ciphertext(raw) is not None for raw in parts)
                except Exception:
                    good = False
                return {"good": good}, []
            case other:
                raise ValueError(other)


def main() -> None:
    source = sys.stdin.buffer
    # The library prints on standard output; answers go where it can't.
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    party = Party()
    while line := source.readline(1 << 20):
        asked = json.loads(line)
        lengths = asked.pop("parts")
        assert len(lengths) <= MOST_PARTS
        parts = [source.read(length) for length in lengths]
        try:
            said, back = party.do(asked, parts)
        except Exception as error:
            said, back = {"error": str(error)[-400:] or type(error).__name__}, []
        sink.write(json.dumps({**said, "parts": [len(part) for part in back]}).encode() + b"\n")
        for part in back:
            sink.write(part)
        sink.flush()


if __name__ == "__main__":
    main()
