"""A Flower app with Opacus over three vaults, between real processes: `python bench/opacus.py [ROUNDS]`.

The network of `docs/how-to/train-with-opacus.md`: `examples/hospitals-opacus`, unmodified, in the sandbox of each vault, with PyTorch for CPUs and
Opacus' DP-SGD inside. Needs `python scripts/install.py peers flower-torch` (about 1 GB), or its folder in `CLUSTERAI_FLOWER`. Tells time, the app's ε, and
the accuracy on 119 patients that no hospital has, out of `model.safetensors`.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import numpy as safetensors

from tests.system.hospitals import HOSPITALS, hospital, patients, told
from tests.system.running import ROOT, Network, until

APP = ROOT / "examples" / "hospitals-opacus"


def accuracy(model: Path) -> float:
    _, features, malignant = patients()
    mine, wanted = features[:119], malignant[:119] > 0
    library: Any = safetensors
    layers = library.load_file(model)
    scaled = (mine - mine.mean(0)) / mine.std(0)
    hidden = np.tanh(scaled @ layers["hidden.weight"].T + layers["hidden.bias"])
    return float(((hidden @ layers["out.weight"][0] + layers["out.bias"][0] > 0) == wanted).mean())


def main() -> None:
    rounds = sys.argv[1] if len(sys.argv) > 1 else "4"
    os.environ.setdefault("CLUSTERAI_FLOWER", str(Path(sys.prefix) / "peers" / "flower-torch"))
    with tempfile.TemporaryDirectory(prefix="clusterai-opacus-") as made:
        folder = Path(made)
        network = Network(folder / "data", vaults=[hospital(folder, at).root for at in range(3)]).up()
        try:
            app = folder / "app"
            shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
            who = ("--identity", str(folder / "identity.json"))
            names = ",".join(HOSPITALS)
            told(network, "train", "request", str(app), "--vaults", names, "--purpose", "malignancy", *who)

            def granted() -> bool:
                found = json.loads(network.cli("data", "grants", "--json", *who).stdout)["grants"]
                return [it["state"] for it in found] == ["granted"] * 3

            until("all grants stand", granted)
            began = time.monotonic()
            words = ("train", "federated", str(app), "--vaults", names, "--norm", "5", "--rounds", rounds)
            run = network.started(*words, "--yes", "--json", *who)
            said, errors = run.communicate(timeout=3600)
            assert run.returncode == 0, errors
            out = json.loads(said)
            took_s = time.monotonic() - began
        finally:
            network.stop()
        print(f"{out['rounds']} sums in {took_s:.0f} s, {out['charged_wei']} wei")
        for row in out["history"]:
            print(json.dumps(row))
        print(f"accuracy on patients of no hospital: {accuracy(Path(out['safetensors'])):.3f}")


if __name__ == "__main__":
    main()
