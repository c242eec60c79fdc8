"""What somebody wants run, before any file was read: what all formats and the command line are turned into."""

from typing import Literal

import msgspec

from clusterai.work.batch.spec import GIB, Check, Resources

SHELL = ("/bin/sh", "-ec")
"""How a script is run: a command that fails ends it, so that a failure is not overlooked."""


class Mount(msgspec.Struct, frozen=True):
    """What to lay into the work folder. `source` is a file or folder here, or `0x…`, the digest of a listing.

    Attributes:
        path: where in the work folder; empty for the folder itself.
        line: of the file that asks for it, for errors.
    """

    path: str
    source: str
    line: int = 0


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the requester wants of the market. None of it changes the result, so none of it is in the spec.

    Attributes:
        max_price_wei: for the whole of one task, the audit's fee included.
        max_hourly_wei: for an hour of it.
        deadline_s: seconds from now until the result must be committed.
        replicas: how many providers do the same, each with a lease of its own.
        retries: how often it is tried again after the provider failed; the program's own failure isn't tried again.
        retry_until_placed: wait for a provider instead of giving up when none can take it now.
    """

    max_price_wei: int | None = None
    max_hourly_wei: int | None = None
    deadline_s: int | None = None
    replicas: int = 1
    retries: int = 0
    retry_until_placed: bool = False


class Unhonoured(msgspec.Struct, frozen=True):
    """Something a file asks for that this network doesn't do, and what happens instead."""

    line: int
    what: str
    why: str


Format = Literal["clusterai", "skypilot", "dstack", "akash", "command line"]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it was asked for.

    Attributes:
        format: which kind of file said it.
        check: None where nothing says it: a module is `wasm`, anything else `unverified`.
        image: the name of a base (`@0x…` behind it: the very one), `tar:0x…`, `NAME@sha256:…`, or a file name that ends in `.wasm`.
        argv: program and arguments; empty where `image` is the program.
        each: task i gets the i-th match of this pattern at this path.
        seed: drawn when it is submitted, where None.
        expected: 32 bytes.
    """

    format: Format = "clusterai"
    name: str = ""
    check: Check | None = None
    image: str = "python"
    argv: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    each: Mount | None = None
    outputs: tuple[str, ...] = ()
    stdout: bool = False
    resources: Resources = Resources(memory_bytes=GIB, disk_bytes=GIB)
    network: bool = False
    seed: int | None = None
    segments: int | None = None
    steps: int | None = None
    fuel: int | None = None
    expected: bytes | None = None
    wishes: Wishes = Wishes()
    unhonoured: tuple[Unhonoured, ...] = ()
