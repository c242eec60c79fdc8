"""Tokens as they come; with a seed, the same ones each time, whichever node sends them.

python examples/streaming.py [MODEL]
"""

import sys

from openai import OpenAI


def main(model: str = "smollm2-135m") -> None:
    stream = OpenAI().chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Tell me about the sea."}],
        max_tokens=60,
        seed=7,
        stream=True,
        stream_options={"include_usage": True},
    )
    for part in stream:
        if part.choices:
            print(part.choices[0].delta.content or "", end="", flush=True)
        elif part.usage:
            print(f"\n[{part.usage.completion_tokens} tokens]")


if __name__ == "__main__":
    main(*sys.argv[1:])
