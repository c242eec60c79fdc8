"""`python -m tests.system.withholding`: the program `clusterai`, with nodes that keep outputs to themselves."""

from typing import Any

import msgspec

from clusterai.cli import main
from clusterai.cli.local import services
from clusterai.cli.local.supervisor import Service

honest = services.node


def villain(*arguments: Any, **options: Any) -> Service:
    return msgspec.structs.replace(honest(*arguments, **options), module="tests.system.withholder")


if __name__ == "__main__":
    services.node = villain
    main.main()
