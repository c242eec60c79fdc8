"""What holds for every test.

The tests' process is as deep as a daemon's: libraries that are tried against ours (web3) raise Python's limit when they are imported.

Examples that Hypothesis draws are the same in every run, so that a run says something of the change it tries, not of a draw. New ones are looked for with
`pytest --hypothesis-profile=default`; what that finds becomes an `@example`.
"""

import sys

from hypothesis import settings

LIMIT = sys.getrecursionlimit()

settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.load_profile("same")


def pytest_collection_finish() -> None:
    sys.setrecursionlimit(LIMIT)
