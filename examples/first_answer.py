"""An answer from the network by an unmodified OpenAI client, and its receipt.

export OPENAI_BASE_URL=… OPENAI_API_KEY=…    (clusterai up prints both)
python examples/first_answer.py [MODEL]
"""

import sys

from openai import OpenAI


def main(model: str = "smollm2-135m") -> None:
    answer = OpenAI().chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        max_tokens=40,
        temperature=0,
    )
    extra = (answer.model_extra or {})["clusterai"]
    print(answer.choices[0].message.content)
    print(f"price:   {extra['price_wei']} of the token's smallest unit")
    print(f"receipt: {extra['receipts'][0]['id']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
