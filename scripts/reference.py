"""Write docs/reference from what runs: commands from the program, settings from the daemons, endpoints from OpenAPI.

python scripts/reference.py           writes
A test holds the committed pages equal to what this would write.
"""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import typer
from typer.core import TyperGroup

from clusterai.cli import main as cli
from clusterai.cli.failure import Exit
from clusterai.gateway import config as gateway
from clusterai.gateway.core.errands import Terms
from clusterai.node import config as node
from clusterai.runtime.adapters import config as shared
from clusterai.validator import config as validator

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "reference"
OPENAPI = ROOT / "src" / "clusterai" / "gateway" / "adapters" / "openapi.json"
MADE = "<!-- written by scripts/reference.py -->\n"
EXITS = {
    Exit.OK: "done",
    Exit.FAILED: "it was tried and didn't work",
    Exit.USAGE: "the command line, or a configuration file, is wrong",
    Exit.NOT_RUNNING: "no network runs there, or it isn't ready, or doesn't answer",
    Exit.BUSY: "the data folder or a port is in use",
    Exit.NOT_FOUND: "no such receipt, model or node",
    Exit.UNTRUE: "a check was carried out, and what was checked is wrong",
    Exit.INTERRUPTED: "stopped from the keyboard",
}


def pages() -> dict[str, str]:
    """Every page by its file name."""
    return {"cli.md": _cli(), "config.md": _config(), "api.md": _api()}


# --- commands ---


def _cli() -> str:
    lines = [
        f"{MADE}# Commands\n",
        "Data goes to stdout, all else to stderr. `NO_COLOR` is obeyed. Options come from the flag, else `CLUSTERAI_*`,",
        "else `clusterai.toml` here, else `config.toml` in the user's configuration folder. `clusterai --install-completion`",
        "teaches the shell.\n",
        "| exit code | meaning |",
        "|---|---|",
        *(f"| {int(code)} | {EXITS[code]} |" for code in Exit),
    ]
    group = typer.main.get_command(cli.app)
    assert isinstance(group, TyperGroup), "the program has commands"
    for name, command in _commands(group, "clusterai"):
        lines += ["", f"## {name}\n", inspect.cleandoc(command.help or "").replace("\n\n", "\n\n"), ""]
        rows = list(_options(command))
        if rows:
            lines += ["| option | | default |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _commands(group: TyperGroup, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            if command.invoke_without_command:
                yield f"{path} {name}", command
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _options(command: Any) -> Iterator[str]:
    for option in command.params:
        if option.name == "help":
            continue
        names = (
            option.opts
            if option.param_type_name == "option"
            else [f"`{(option.metavar or option.name.upper())}`"]
        )
        label = ", ".join(names) if names[0].startswith("`") else "`" + "`, `".join(names) + "`"
        default = "" if option.default in (None, False) or callable(option.default) else f"`{option.default}`"
        variable = f" (`{option.envvar}`)" if option.envvar else ""
        yield f"| {label} | {option.help or ''}{variable} | {default} |"


# --- settings ---


def _config() -> str:
    parts = [
        f"{MADE}# Settings\n",
        "Each daemon reads one file, TOML or JSON: `python -m clusterai.node --config FILE`, and likewise `clusterai.gateway` and",
        "`clusterai.validator`; without `--config`, the table of its name in `./clusterai.toml`. What is one number, flag, text or path",
        "can be set by a flag too (`--metrics-port 9100`), or by `CLUSTERAI_NODE_METRICS_PORT` and the like: the flag goes first, then",
        "the variable, then the file. Relative paths are of the file's own folder, those of flags and variables of the current one.",
        "`clusterai up` writes these files itself, anew at each start. Secrets are never in them: keys are files of their own.\n",
        "## Gateway\n",
        *_table(gateway.Config),
        "\n`terms`:\n",
        *_table(Terms),
        "\n`market`:\n",
        *_table(gateway.MarketConfig),
        "\n## Node\n",
        *_table(node.Config),
        "\nEach of `gateways`:\n",
        *_table(shared.GatewayConfig),
        "\nEach of `models`:\n",
        *_table(node.ModelConfig),
        "\n`jobs`:\n",
        *_table(node.JobsConfig),
        "\nEach of `hours`:\n",
        *_table(node.HoursConfig),
        "\n`idle`:\n",
        *_table(node.IdleConfig),
        "\n`power`:\n",
        *_table(node.PowerConfig),
        "\n`rentals`:\n",
        *_table(node.RentalsConfig),
        "\n## Validator\n",
        "`gateways` are as a node's.\n",
        *_table(validator.Config),
    ]
    return "\n".join(parts) + "\n"


def _table(kind: type[msgspec.Struct]) -> list[str]:
    """Fields with defaults and the words of the docstring's `Attributes`."""
    words: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        words |= _attributes(one.__doc__ or "")
    rows = ["| setting | default | |", "|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        default = "required" if field.required else f"`{_shown(field)}`"
        rows.append(f"| `{field.name}` | {default} | {words.get(field.name, '')} |")
    return rows


def _shown(field: Any) -> str:
    if field.default is not msgspec.NODEFAULT:
        return "…" if isinstance(field.default, msgspec.Struct) else json.dumps(field.default, default=str)
    return "…"


def _attributes(doc: str) -> dict[str, str]:
    """`name, other: words` lines of a docstring, each name with the words."""
    _, _, text = inspect.cleandoc(doc).partition("Attributes:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \S)", text):
        names, _, words = entry.strip().partition(":")
        for name in names.split(","):
            found[name.strip()] = " ".join(words.split())
    return found


# --- endpoints ---


def _api() -> str:
    document = json.loads(OPENAPI.read_text())
    lines = [
        f"{MADE}# Endpoints\n",
        "The whole description, with schemas, is the gateway's `/openapi.json`. Under `/v1/` answers and errors are OpenAI's;",
        "under `/v1/clusterai/` errors are RFC 9457 problems.\n",
        "| | | |",
        "|---|---|---|",
    ]
    for path, methods in document.get("paths", {}).items():
        for method, operation in methods.items():
            if method in ("get", "post", "put", "delete"):
                lines.append(f"| {method.upper()} | `{path}` | {operation.get('summary', '')} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (TARGET / name).write_text(text)


if __name__ == "__main__":
    main()
