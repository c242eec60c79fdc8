"""LangChain's and LiteLLM's OpenAI clients against a real gateway, told where it is as a person would tell them."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rooms.gateway.bed import Bed
from tests.rooms.gateway.peers import python_of

HOW_TO = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "use-your-tools.md"
DEADLINE_S = 180
LANGCHAIN = """
import asyncio
from langchain_openai import ChatOpenAI
model = ChatOpenAI(model="tiny", max_tokens=8, seed=1, max_retries=0)
whole = model.invoke("hello")
assert whole.content and whole.usage_metadata["output_tokens"] == 8, whole
streamed = "".join(chunk.content for chunk in model.stream("hello"))
assert streamed == whole.content, (streamed, whole.content)
assert asyncio.run(model.ainvoke("hello")).content == whole.content
assert len(model.batch(["one", "two", "three"])) == 3
try:
    model.bind(temperature=9).invoke("hello")
except Exception as error:
    assert error.status_code == 400, error
else:
    raise AssertionError("an impossible temperature was taken")
"""
LITELLM = """
import asyncio, litellm
ask = dict(model="openai/tiny", max_tokens=8, seed=1, num_retries=0, messages=[{"role": "user", "content": "hello"}])
whole = litellm.completion(**ask)
assert whole.choices[0].message.content and whole.usage.completion_tokens == 8, whole
streamed = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(stream=True, **ask))
assert streamed == whole.choices[0].message.content, streamed
assert asyncio.run(litellm.acompletion(**ask)).choices[0].message.content == streamed
try:
    litellm.completion(**{**ask, "temperature": 9})
except litellm.BadRequestError:
    pass
else:
    raise AssertionError("an impossible temperature was taken")
try:
    litellm.completion(api_key="sk-clusterai-nobody", **ask)
except litellm.AuthenticationError:
    pass
else:
    raise AssertionError("a stranger's key was taken")
"""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with Bed(tmp_path_factory.mktemp("clients"), wallets=False) as it:
        yield it


def snippet(heading: str) -> str:
    """The program that the how-to shows under a heading, asking for the model that is served here."""
    found = re.search(rf"^## {heading}\n```python\n(.*?)^```", HOW_TO.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"{HOW_TO.name} shows no program under {heading}"
    return found[1].replace("smollm2-135m", "tiny")


@pytest.mark.parametrize(("name", "code"), [("langchain", LANGCHAIN), ("litellm", LITELLM)])
def test_client_asks_whole_streamed_and_wrongly(bed: Bed, name: str, code: str):
    """Its answers, streams and errors are what it makes of OpenAI's, and so is the program of the how-to."""
    shown = snippet({"langchain": "LangChain", "litellm": "LiteLLM"}[name])
    environment = {it: value for it, value in os.environ.items() if not it.startswith("PYTHON")} | {
        "OPENAI_BASE_URL": f"{bed.url}/v1",
        "OPENAI_API_KEY": bed.key,
        # It would ask the internet for prices as it is imported, and try three times.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    before = bed.spent()
    done = subprocess.run(
        [python_of(name), "-c", shown + code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert bed.spent() > before
