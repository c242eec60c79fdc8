"""Imports that would change the interpreter, without the change."""

import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def same_recursion_limit() -> Generator[None]:
    """For imports of eth_account, and of web3, which has it. Both load py_ecc, and that sets Python's limit of recursion to 100,000.

    Nothing of ours needs that depth, and with it a stranger's JSON that is nested as deep overflows C's stack: the process is gone, where it
    would have raised RecursionError and answered 400.
    """
    limit = sys.getrecursionlimit()
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
