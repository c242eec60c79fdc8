"""Coverage-guided fuzzing of every strict decoder, by atheris (libFuzzer for Python).

    make fuzz SECONDS=600                                   all of them, one after another
    python -m tests.fuzz.run frames --seconds 600           one

What was learnt stays in .fuzz/NAME, so that the next run goes on from there. An input that breaks a promise is saved
and named; put it into tests/fuzz/found/NAME, where `make test` tries it for ever, and cure the code.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from scripts import install

ROOT = Path(__file__).resolve().parents[2]
TARGETS = sorted(it.stem for it in (ROOT / "tests" / "fuzz" / "targets").glob("*.py"))
HANG_S = 10
MOST_MIB = 2048
MOST_BYTES = 4096


def fuzz(name: str, seconds: int) -> bool:
    """Whether the target kept its promise so long."""
    home = ROOT / ".fuzz" / name
    corpus, broken = home / "corpus", home / "broken"
    for folder in (corpus, broken):
        folder.mkdir(parents=True, exist_ok=True)
    before = set(broken.iterdir())
    target = __import__(f"tests.fuzz.targets.{name}", fromlist=["seeds"])
    for at, seed in enumerate(target.seeds()):
        (corpus / f"seed-{at}").write_bytes(seed)
    python = install.peer(install.PEERS / "atheris.txt", install.HOME / "peers" / "atheris")
    assert python is not None, "atheris isn't installed: make fuzz"
    site = next(python.parents[1].glob("lib/python*/site-packages"))
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.fuzz.worker", name, str(corpus), f"-max_total_time={seconds}",
            f"-timeout={HANG_S}", f"-rss_limit_mb={MOST_MIB}", f"-max_len={MOST_BYTES}",
            f"-artifact_prefix={broken}/", "-print_final_stats=1",
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}:{site}"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    (home / "log").write_text(said)
    tried = re.search(r"number_of_executed_units:\s*(\d+)", said)
    reached = re.findall(r"cov: (\d+)", said)
    print(f"{name}: {tried[1] if tried else '?'} inputs, {reached[-1] if reached else '?'} edges", end="")
    if done.returncode == 0:
        print()
        return True
    found = " ".join(str(it) for it in sorted(set(broken.iterdir()) - before))
    print(f" BROKEN by {found or 'its start'}; {home / 'log'} ends:\n{said[-3000:]}")
    return False


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(TARGETS)}; all if none is given"
    )
    parser.add_argument("--seconds", type=int, default=60, help="for each")
    options = parser.parse_args()
    if unknown := set(options.names) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    return sum(not fuzz(name, options.seconds) for name in options.names or TARGETS)


if __name__ == "__main__":
    sys.exit(main())
