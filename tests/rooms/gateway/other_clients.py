"""LangChain's and LiteLLM's OpenAI clients against a real gateway; their packages conflict with ours.

    python -m tests.rooms.gateway.other_clients --langchain VENV/bin/python --litellm VENV/bin/python

Each runs in its own environment, given by its Python; those that aren't given are passed over.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.rooms.gateway.bed import Bed

LANGCHAIN = """
import sys
from langchain_openai import ChatOpenAI
model = ChatOpenAI(model="tiny", base_url=sys.argv[1], api_key=sys.argv[2], max_tokens=8, seed=1, max_retries=0)
whole = model.invoke("hello")
assert whole.content and whole.usage_metadata["output_tokens"] == 8, whole
streamed = "".join(chunk.content for chunk in model.stream("hello"))
assert streamed == whole.content, (streamed, whole.content)
assert len(model.batch(["one", "two", "three"])) == 3
"""
LITELLM = """
import sys, litellm
ask = dict(model="openai/tiny", api_base=sys.argv[1], api_key=sys.argv[2], max_tokens=8, seed=1, num_retries=0,
    messages=[{"role": "user", "content": "hello"}])
whole = litellm.completion(**ask)
assert whole.choices[0].message.content and whole.usage.completion_tokens == 8, whole
streamed = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(stream=True, **ask))
assert streamed == whole.choices[0].message.content, streamed
try:
    litellm.completion(**{**ask, "temperature": 9})
except litellm.BadRequestError:
    pass
else:
    raise AssertionError("an impossible temperature was taken")
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--langchain", help="Python with langchain-openai")
    parser.add_argument("--litellm", help="Python with litellm")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder, Bed(Path(folder)) as bed:
        for name, python, code in (
            ("langchain", options.langchain, LANGCHAIN),
            ("litellm", options.litellm, LITELLM),
        ):
            if python is None:
                continue
            done = subprocess.run([python, "-c", code, f"{bed.url}/v1", bed.key], check=False, timeout=180)
            print(name, "works" if done.returncode == 0 else "FAILED")
            failed += done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
