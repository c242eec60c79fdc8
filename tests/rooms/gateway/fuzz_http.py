"""Schemathesis against a real gateway and its own OpenAPI file: no 5xx, no answer that the file doesn't describe.

python -m tests.rooms.gateway.fuzz_http --schemathesis VENV/bin/schemathesis [--examples 50]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from clusterai.gateway.core.limits import Limits
from tests.rooms.gateway.bed import Bed

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection"
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schemathesis", required=True, help="its command, of an environment of its own")
    parser.add_argument("--examples", type=int, default=50, help="per operation")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Bed(Path(name), wallets=False) as bed:
        key, _ = bed.ring.create("fuzz", bed.account, limits=Limits(0, 0, 0))
        admin = (Path(name) / "gateway" / "admin.key").read_text().strip()
        file = Path(name) / "openapi.json"
        document = bed.get("/openapi.json")
        for request in ("ChatRequest", "CompletionRequest", "EmbeddingRequest"):
            # With models of its own invention it would see nothing but 404.
            document["components"]["schemas"][request]["properties"]["model"] = {"enum": ["tiny"]}
        file.write_text(json.dumps(document))
        codes = [
            subprocess.run(
                [
                    options.schemathesis, "run", str(file), "--url", bed.url,
                    "-H", f"Authorization: Bearer {secret}", "--checks", CHECKS,
                    "--phases", "examples,coverage,fuzzing", "-n", str(options.examples),
                    "--suppress-health-check", "all", "--request-timeout", "20", "--generation-database", "none",
                    which, "/clusterai/keys",
                ],
                check=False,
            ).returncode
            for secret, which in ((key, "--exclude-path-regex"), (admin, "--include-path-regex"))
        ]  # fmt: skip
        healthy = bed.healthy()
        print("the gateway is", "well" if healthy else "NOT WELL")
        return max(*codes, 0 if healthy else 1)


if __name__ == "__main__":
    sys.exit(main())
