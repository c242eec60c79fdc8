"""`python -m tests.system.villainous`: the program `clusterai`, with false accusers for validators."""

from typing import Any

import msgspec

from clusterai.cli import main
from clusterai.cli.local import services
from clusterai.cli.local.supervisor import Service

honest = services.validator


def villain(*arguments: Any) -> Service:
    return msgspec.structs.replace(honest(*arguments), module="tests.system.falseaccuser")


if __name__ == "__main__":
    services.validator = villain
    main.main()
