"""The tests' process is as deep as a daemon's: libraries that are tried against ours (web3) raise Python's limit when they are imported."""

import sys

LIMIT = sys.getrecursionlimit()


def pytest_collection_finish() -> None:
    sys.setrecursionlimit(LIMIT)
