"""Schemathesis against a real gateway and its own OpenAPI file: no 5xx, no silence, no answer that the file lacks.

    python -m tests.rooms.gateway.fuzz_http [--examples 1000] [--seed N]

`test_fuzz_http.py` does the same with few examples, and shows that a gateway with a bug fails.
"""

import argparse
import json
import re
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from clusterai.gateway.core.limits import Limits
from tests.rooms.gateway.bed import Bed
from tests.rooms.gateway.peers import python_of

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance,negative_data_rejection,ignored_auth,unsupported_method,allow_header_conformance"
)
EMBEDDING = "all-minilm-l6-v2"
SILENCE_S = 60
"""A request that isn't answered by then hangs; the toy model needs milliseconds."""
DEADLINE_S = 3600


class Verdict(NamedTuple):
    """What a run came to.

    Attributes:
        well: nothing was found, and the run went to its end.
        cases: requests that were made up and sent.
        said: all that was printed.
    """

    well: bool
    cases: int
    said: str


def fuzz(
    bed: Bed,
    *which: str,
    secret: str,
    examples: int,
    seed: int,
    repeats: bool = False,
    silence_s: float = SILENCE_S,
) -> Verdict:
    """Send what contradicts the OpenAPI file and what doesn't, and hold each answer against it.

    Args:
        which: options that choose the operations.
        secret: the key that requests carry.
        examples: random requests per operation, beside those that walk along each field's limits.
        repeats: send idempotency keys too. The fuzzer knows few, so that most bodies are refused unread.
    """
    document = bed.get("/openapi.json")
    for request, model in (("Chat", "tiny"), ("Completion", "tiny"), ("Embedding", EMBEDDING)):
        # With models of its own invention it would see nothing but 404.
        fields = document["components"]["schemas"][f"{request}Request"]["properties"]
        fields["model"] = {"enum": [model]}
    if not repeats:
        for methods in document["paths"].values():
            for operation in methods.values():
                named = operation.get("parameters", [])
                operation["parameters"] = [it for it in named if it.get("name") != "Idempotency-Key"]
    file = bed.folder / "openapi.json"
    file.write_text(json.dumps(document))
    done = subprocess.run(
        [
            python_of("schemathesis"), "-m", "schemathesis.cli", "run", file, "--url", bed.url,
            "-H", f"Authorization: Bearer {secret}", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing",
            "-n", str(examples), "--seed", str(seed), "--suppress-health-check", "all",
            "--request-timeout", str(silence_s), "--generation-database", "none", "--no-color", *which,
        ],
        cwd=bed.folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    cases = re.search(r"^\s*(\d+) generated", said, re.MULTILINE)
    return Verdict(done.returncode == 0 and bed.healthy(), int(cases[1]) if cases else 0, said)


def make_bed(folder: Path) -> Bed:
    """Stand-ins that chat, and a node that embeds: every operation has somebody who carries it out."""
    return Bed(folder, nodes=1, model=EMBEDDING, serve=["tiny", EMBEDDING], wallets=False)


def fuzz_all(bed: Bed, examples: int, seed: int) -> Verdict:
    """All operations: what clients use with a client's key, the keys themselves with the admin's."""
    key, _ = bed.ring.create("fuzz", bed.account, limits=Limits(0, 0, 0))
    admin = (bed.folder / "gateway" / "admin.key").read_text().strip()
    keys = "/clusterai/keys"
    runs = [
        fuzz(bed, "--exclude-path-regex", keys, secret=key, examples=examples, seed=seed),
        fuzz(
            bed, "--include-path", "/v1/completions", secret=key, examples=examples, seed=seed, repeats=True
        ),
        fuzz(bed, "--include-path-regex", keys, secret=admin, examples=examples, seed=seed),
    ]
    return Verdict(
        all(it.well for it in runs), sum(it.cases for it in runs), "\n".join(it.said for it in runs)
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=1000, help="random requests per operation")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, make_bed(Path(name)) as bed:
        verdict = fuzz_all(bed, options.examples, options.seed)
    print(verdict.said)
    print(f"{verdict.cases} cases, seed {options.seed}:", "well" if verdict.well else "NOT WELL")
    return not verdict.well


if __name__ == "__main__":
    sys.exit(main())
