"""OpenFHE's shape without its cryptography: keys are numbers that must cancel, so that the wiring can be tested anywhere.

The real library's run is `bench/secagg.py --parts ckks`.
"""
# pyright: basic

import json
from types import SimpleNamespace as Thing

BINARY = 0
SecurityLevel = Thing(HEStd_128_classic=0)
PKESchemeFeature = Thing(PKE=0, KEYSWITCH=1, LEVELEDSHE=2, ADVANCEDSHE=3, MULTIPARTY=4)
RING = 16


class CCParamsCKKSRNS:
    def __getattr__(self, name):
        return lambda value: None


class Context:
    made = 0

    def Enable(self, feature):
        pass

    def GetRingDimension(self):
        return RING

    def KeyGen(self):
        return self.MultipartyKeyGen(0)

    def MultipartyKeyGen(self, before):
        import os

        secret = int.from_bytes(os.urandom(4)) + 1
        return Thing(publicKey=before + secret, secretKey=secret)

    def MakeCKKSPackedPlaintext(self, values):
        return [*values, *[0.0] * (RING // 2 - len(values))]

    def Encrypt(self, public, values):
        print("what a library prints must not reach the answers")
        return {"values": values, "times": 1, "mask": public}

    def EvalAdd(self, a, b):
        if isinstance(b, list):
            return {**a, "values": [x + y for x, y in zip(a["values"], b, strict=True)]}
        values = [x + y for x, y in zip(a["values"], b["values"], strict=True)]
        return {"values": values, "times": a["times"] + b["times"], "mask": a["mask"] + b["mask"]}

    def MultipartyDecryptLead(self, blocks, secret):
        return [{**block, "mask": block["mask"] - block["times"] * secret} for block in blocks]

    def MultipartyDecryptMain(self, blocks, secret):
        return [
            {"values": [0.0] * (RING // 2), "times": 0, "mask": -block["times"] * secret} for block in blocks
        ]

    def MultipartyDecryptFusion(self, shares):
        if sum(share["mask"] for share in shares):
            raise RuntimeError("the approximation error is too high")
        values = [sum(slot) for slot in zip(*(share["values"] for share in shares), strict=True)]
        return Thing(SetLength=lambda length: None, GetRealPackedValue=lambda: values)


def GenCryptoContext(parameters):
    return Context()


def Serialize(thing, how):
    return json.dumps(thing).encode()


def DeserializePublicKeyString(raw, how):
    return json.loads(raw)


def DeserializeCiphertextString(raw, how):
    return json.loads(raw)
