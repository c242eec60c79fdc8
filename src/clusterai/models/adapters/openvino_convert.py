"""Makes an OpenVINO model of a GGUF, in a process of its own.

The converter compiles the model on its way and keeps a second copy of the weights; as a child process it gives
that memory back, and a crash in it is an error message here.
"""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from clusterai.models.store import WEIGHTS, ModelStore, Progress, StoredModel

MOST_TIME_S = 1800


class NotConverted(RuntimeError):
    """OpenVINO can't convert this model; the message is its own last words. Use another quantization (Q4_0, Q4_1, Q8_0, F16)."""


def openvino_folder(store: ModelStore, model: StoredModel, progress: Progress | None = None) -> Path:
    """The folder with the model's `openvino_model.xml`; converted now if this version hasn't yet (5 s for 135M)."""
    return store.converted(model, f"openvino-{version('openvino-genai')}", _convert, progress)


def _convert(model: StoredModel, folder: Path) -> None:
    link = folder / WEIGHTS
    link.symlink_to(model.weights)
    command = [sys.executable, "-m", "clusterai.models.adapters.openvino_convert", str(link)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_TIME_S, check=False)
    link.unlink()
    if done.returncode or not (folder / "openvino_model.bin").is_file():
        words = done.stderr.strip().splitlines() or ["it said nothing"]
        raise NotConverted(f"{model.card.name} can't be converted for OpenVINO: {words[-1]}")


def _main(path: str) -> None:
    import openvino_genai

    openvino_genai.LLMPipeline(path, "CPU", enable_save_ov_model=True, INFERENCE_NUM_THREADS=1)


if __name__ == "__main__":
    _main(sys.argv[1])
