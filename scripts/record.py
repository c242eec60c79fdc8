"""Run commands against a network that is up, and write what the terminal showed as an SVG.

    python scripts/record.py docs/demo.svg --data DIR

Nothing is typed by hand: each command runs, and its own output is what the picture holds.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COMMANDS = (
    "python examples/first_answer.py",
    "clusterai audit replay {receipt}",
    "clusterai demo cheat --yes",
)
WIDTH = 112


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="data folder of a network that is up")
    arguments = parser.parse_args()
    console = Console(record=True, width=WIDTH, file=sys.stderr, force_terminal=True)
    receipt = ""
    for command in COMMANDS:
        line = command.format(receipt=receipt)
        console.print(Text.assemble(("$ ", "green"), (line, "bold")))
        said = run(line, arguments.data)
        console.print(Text.from_ansi(said.rstrip("\n")), highlight=False)
        console.print()
        if "receipt: " in said:
            receipt = said.rpartition("receipt: ")[2].strip()
    picture = console.export_svg(title="clusterai")
    # rich names a font on a server of others; a picture should ask nobody.
    arguments.target.write_text(re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL))


def run(line: str, data: Path) -> str:
    """What the command answered, colours included; its advice on stderr is left out."""
    words = shlex.split(line)
    account = (data / "account.json").read_text()
    state = (data / "up.json").read_text()
    environment = os.environ | {
        "FORCE_COLOR": "1",
        "COLUMNS": str(WIDTH),
        "CLUSTERAI_DATA": str(data),
        "OPENAI_BASE_URL": _field(state, "gateway") + "/v1",
        "OPENAI_API_KEY": _field(account, "key"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    return subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def _field(json: str, name: str) -> str:
    import msgspec

    return msgspec.json.decode(json)[name]


if __name__ == "__main__":
    main()
