"""Where a command's defaults come from: flag, then `CLUSTERAI_*`, then `./clusterai.toml`, then the user's config file.

Both files hold the long names of options, in a table per command; options at the top hold for every command:

    data = "/srv/clusterai"
    [up]
    nodes = 3

The tables `gateway`, `node` and `validator` are those daemons' own settings, where one is started without `--config`.
"""

import os
import tomllib
from pathlib import Path
from typing import Any, cast

from clusterai.cli.failure import Exit, Failure
from clusterai.runtime.adapters.config import PROJECT_FILE

DAEMONS = {"gateway", "node", "validator"}


def user_file() -> Path:
    from platformdirs import user_config_path

    return user_config_path("clusterai") / "config.toml"


def default_data() -> Path:
    """Where a network lives when nothing says otherwise."""
    from platformdirs import user_data_path

    return user_data_path("clusterai") / "local"


def default_node() -> Path:
    """Where this machine's node lives when nothing says otherwise."""
    from platformdirs import user_data_path

    return user_data_path("clusterai") / "node"


def command(words: str, data: Path) -> str:
    """A command line that works if it is pasted where this program was started."""
    import shutil
    import sys

    program = "clusterai"
    if shutil.which(program) is None and Path(sys.argv[0]).name == program:
        program = sys.argv[0]
    named = os.environ.get("CLUSTERAI_DATA")
    usual = Path(named).expanduser().resolve() if named else default_data().resolve()
    return f"{program} {words}" + ("" if data == usual else f" --data {data}")


def load(commands: dict[str, Any]) -> dict[str, Any]:
    """Both files as click's `default_map`: per command, its table over the options at the top.

    Args:
        commands: the names of commands, with the same again for groups of commands.

    Raises:
        Failure: a file isn't TOML, or has a table that is no command.
    """
    merged: dict[str, Any] = {}
    for path in (user_file(), Path(PROJECT_FILE)):
        if path.is_file():
            try:
                found = tomllib.loads(path.read_text())
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise Failure(
                    f"{path} can't be read",
                    str(error),
                    f"correct it, or move it away: mv {path} {path}.off",
                    Exit.USAGE,
                ) from None
            merged = _over(merged, found)
    shared = {_key(name): value for name, value in merged.items() if not isinstance(value, dict)}
    tables = _tables(merged)
    unknown = tables.keys() - commands.keys() - DAEMONS
    if unknown:
        raise Failure(
            f"[{min(unknown)}] in clusterai.toml is no command",
            next="clusterai --help lists the commands",
            code=Exit.USAGE,
        )
    return _fill(commands, tables, shared)


def _fill(commands: dict[str, Any], tables: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    filled: dict[str, Any] = {}
    for name, inner in commands.items():
        table: dict[str, Any] = tables.get(name, {})
        own = {_key(key): value for key, value in table.items() if not isinstance(value, dict)}
        if inner:
            filled[name] = _fill(inner, _tables(table), shared | own)
        else:
            filled[name] = shared | own
    return filled


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    deeper = _tables(below)
    for name, value in above.items():
        merged[name] = (
            _over(deeper.get(name, {}), cast("dict[str, Any]", value)) if isinstance(value, dict) else value
        )
    return merged


def _tables(given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: cast("dict[str, Any]", value) for name, value in given.items() if isinstance(value, dict)}


def _key(name: str) -> str:
    return name.replace("-", "_")
