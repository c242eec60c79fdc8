"""Sums under CKKS whose key nobody holds: the second way to sum, by OpenFHE in processes beside ours.

Each party runs `ckks_party.py` in its own process, which keeps its share of the key. The joint public key is made in a chain,
everyone encrypts to it, anyone adds ciphertexts, and **every** party must open its share of the sum: with one missing nothing
decrypts. That is the difference to masking: no drop-outs once the key is made, but one message a party, no neighbours, and
sums of sums at leisure.

It protects against parties and a server that follow the protocol and look. Not against a party that lies when
the key is made (no proof of its share is asked), nor by itself one that encrypts rubbish or opens falsely: `work.joint` has tallies for that. Decrypted CKKS values carry an error
that depends on the key shares (Li and Micciancio 2021): what leaves should be rounded or noised, as `work.joint` does.

The error is 1e-11 or 2^-48 of the largest value, whichever is more: the library computes in double precision (measured by `bench/secagg.py --parts ckks`).
"""

import asyncio
import contextlib
import json
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PYTHONS = ("python3.10", "python3.12")
"""For which OpenFHE has wheels that load on common systems."""
PINNED = "openfhe==1.6.1.0.22.4"
MAX_ANSWER_BYTES = 1 << 30
PARTY = Path(__file__).with_name("ckks_party.py")


class NoOpenFhe(RuntimeError):
    """No Python with OpenFHE found. Make one and name it, here and where vaults are served: python3.10 -m venv DIR &&
    DIR/bin/pip install openfhe==… numpy, then CLUSTERAI_OPENFHE_PYTHON=DIR/bin/python."""

    def __init__(self, tried: Sequence[str]) -> None:
        super().__init__(
            f"no Python with OpenFHE found (tried {', '.join(tried) or 'none'}). Make one and name it, here and where vaults are served: "
            f"python3.10 -m venv DIR && DIR/bin/pip install {PINNED} numpy, then CLUSTERAI_OPENFHE_PYTHON=DIR/bin/python"
        )


class CannotOpen(RuntimeError):
    """The sum doesn't decrypt: {why}. Every party of the key must open its share; make a new key without those who left."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the sum doesn't decrypt: {why}. Every party of the key must open its share; make a new key without those "
            "who left"
        )


def openfhe_python(setting: str | None = None) -> str:
    """A Python that imports openfhe: the setting's, or one on PATH.

    Raises:
        NoOpenFhe: none does.
    """
    tried = [setting] if setting else [found for name in PYTHONS if (found := shutil.which(name))]
    for python in tried:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                [python, "-c", "import openfhe"], capture_output=True, timeout=60, check=False
            )
            if done.returncode == 0:
                return python
    raise NoOpenFhe(tried)


class CkksParty:
    """A process with one share of the key. Use as an async context."""

    def __init__(self, python: str) -> None:
        self._python = python
        self._process: asyncio.subprocess.Process | None = None
        self._alone = asyncio.Lock()

    async def __aenter__(self) -> "CkksParty":
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            self._python,
            str(PARTY),
            stdin=pipe,
            stdout=pipe,
            stderr=asyncio.subprocess.DEVNULL,
            limit=1 << 20,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _do(self, parts: Sequence[bytes], **asked: Any) -> tuple[dict[str, Any], list[bytes]]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        async with self._alone, asyncio.timeout(600):
            head = json.dumps({**asked, "parts": [len(part) for part in parts]}).encode() + b"\n"
            process.stdin.write(head)
            for part in parts:
                process.stdin.write(part)
                await process.stdin.drain()
            said: dict[str, Any] = json.loads(
                await process.stdout.readline() or b'{"error": "ended", "parts": []}'
            )
            lengths: list[int] = said.pop("parts")
            if sum(lengths) > MAX_ANSWER_BYTES:
                raise CannotOpen("an answer without end")
            back = [await process.stdout.readexactly(length) for length in lengths]
        if "error" in said:
            raise CannotOpen(said["error"])
        return said, back

    async def join(self, before: bytes | None = None) -> bytes:
        """Add this party's share to the joint public key of those before it; None for the first."""
        _, back = await self._do([] if before is None else [before], do="key")
        return back[0]

    async def encrypt(self, public: bytes, values: npt.NDArray[np.float64]) -> list[bytes]:
        """Blocks of 2^13 values under the joint key."""
        return (await self._do([public, values.astype("<f8").tobytes()], do="encrypt"))[1]

    async def add(self, encrypted: Sequence[Sequence[bytes]]) -> list[bytes]:
        """The sum of several parties' blocks; needs no key."""
        blocks = len(encrypted[0])
        if any(len(one) != blocks for one in encrypted):
            raise CannotOpen("vectors of different lengths")
        return (await self._do([block for one in encrypted for block in one], do="add", blocks=blocks))[1]

    async def open(self, total: Sequence[bytes], lead: bool) -> list[bytes]:
        """This party's share of the decryption; exactly one party, the first of the key, leads."""
        return (await self._do(total, do="open", lead=lead))[1]

    async def reads(self, opened: Sequence[bytes]) -> bool:
        """Whether a party's share of the decryption is one in shape. Whether it is true, the library doesn't tell."""
        try:
            return bool((await self._do(opened, do="read"))[0]["good"])
        except (CannotOpen, OSError, asyncio.IncompleteReadError):
            return False  # it took the reader along

    async def fuse(self, opened: Sequence[Sequence[bytes]], length: int) -> npt.NDArray[np.float64]:
        """The sum in the clear from every party's share.

        Raises:
            CannotOpen: a share is missing or not of this sum.
        """
        blocks = len(opened[0])
        parts = [block for one in opened for block in one]
        back = (await self._do(parts, do="fuse", blocks=blocks, length=length))[1][0]
        return np.array(struct.unpack(f"<{length}d", back))


async def joint_key(parties: Sequence[CkksParty]) -> bytes:
    """The chain over all parties; the last one's key is everyone's."""
    key: bytes | None = None
    for party in parties:
        key = await party.join(key)
    assert key is not None
    return key


async def opened(
    parties: Sequence[CkksParty], total: Sequence[bytes], length: int
) -> npt.NDArray[np.float64]:
    """All parties open.

    Raises:
        CannotOpen: what came out are no numbers.
    """
    shares = [await party.open(total, lead=at == 0) for at, party in enumerate(parties)]
    values = await parties[0].fuse(shares, length)
    if not np.isfinite(values).all():
        raise CannotOpen("what came out are no numbers")
    return values
