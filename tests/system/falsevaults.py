"""`python -m tests.system.falsevaults`: the program `clusterai`, with nodes whose vaults cheat in training when they are told to."""

from typing import Any

import msgspec

from clusterai.cli import main
from clusterai.cli.local import services
from clusterai.cli.local.supervisor import Service

honest = services.node


def villain(*arguments: Any, **named: Any) -> Service:
    return msgspec.structs.replace(honest(*arguments, **named), module="tests.system.falsetrainer")


if __name__ == "__main__":
    services.node = villain
    main.main()
