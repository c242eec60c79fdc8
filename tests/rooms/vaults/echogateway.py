"""The gateway, knowing the tests' kind too: python -m tests.rooms.vaults.echogateway --config FILE."""

import sys

from clusterai.gateway import __main__ as program
from tests.rooms.vaults import echo

if __name__ == "__main__":
    echo.register()
    sys.exit(program.main())
