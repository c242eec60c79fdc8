"""`ckks_party.py` of a vault that lies when it opens, or when it encrypts: run in its place, with the lie's name before the script.

python lying_party.py garbage|shift|slot|input SCRIPT
"""
# pyright: basic

import importlib.util
import sys

SHIFT = 3.0
"""Of a half of an integer. The upper half's unit is 2^31 of the sum's, so it moves a count by 384."""


def main() -> None:
    lie, script = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("ckks_party", script)
    assert spec is not None
    assert spec.loader is not None
    ckks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ckks)
    honest = ckks.Party.do

    def do(self, asked, parts):
        if lie == "nonsense" and asked["do"] == "open":
            return {}, [b"\x00nonsense"] * len(parts)
        if lie == "garbage" and asked["do"] == "open":
            self.secret = self.context.KeyGen().secretKey
        said, back = honest(self, asked, parts)
        if asked["do"] == {"shift": "open", "slot": "open", "input": "encrypt"}.get(lie):
            moved = [SHIFT] * self.slots if lie == "shift" else [SHIFT]
            plain = self.context.MakeCKKSPackedPlaintext(moved)
            first = self.context.EvalAdd(self.ciphertext(back[0]), plain)
            back = [self.text(first), *back[1:]]
        return said, back

    ckks.Party.do = do
    ckks.main()


if __name__ == "__main__":
    main()
