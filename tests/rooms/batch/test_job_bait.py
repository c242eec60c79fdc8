"""What a provider commits to for a planted lease, and what an auditor makes of it who runs it."""

import asyncio
from itertools import accumulate

import msgspec
import pytest

from clusterai.protocol.ids import Digest
from clusterai.protocol.keccak import keccak
from clusterai.protocol.leases import is_bait, segment_result, trap_digest
from clusterai.sandbox import BlobStore, CannotSandbox
from clusterai.sandbox.adapters.wasm import sample
from clusterai.sandbox.core.state import decode_state
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.batch.spec import Image, JobSpec, Resources

SECRETS = [Digest(keccak(b"secret %d" % n)) for n in range(4)]
SEGMENTS = 9


@pytest.fixture(scope="module")
def sieve(store: BlobStore) -> JobSpec:
    image = Image("wasm", store.put(sample("sieve")))
    return JobSpec(
        name="sieve",
        check="wasm",
        image=image,
        argv=("8",),
        fuel=10**9,
        segments=20,
        resources=Resources(time_s=60),
    )


@pytest.mark.parametrize("secret", SECRETS)
def test_whoever_runs_bait_comes_to_something_else(
    performer: Performer, store: BlobStore, sieve: JobSpec, secret: Digest
) -> None:
    """Every segment that ends in bait begins with a state that this job can be run on from, with the meter that is claimed for it."""

    async def play() -> int:
        found = await performer.bait(sieve, secret, SEGMENTS)
        assert found[0].state == await performer.start(sieve)
        meter = [*accumulate(it.units for it in found)]
        ends = 0
        for segment in range(1, SEGMENTS + 1):
            if not is_bait(secret, segment, SEGMENTS):
                continue
            ends += 1
            before = found[segment - 1].state
            assert found[segment].state == trap_digest(secret, segment)
            state = decode_state(store.read(before, 1 << 24))
            assert (state.step, state.ended) == ((segment - 1) * sieve.steps, None)
            again = await performer.rerun(sieve, before)
            assert segment_result(again.state, meter[segment - 1] + again.units) != segment_result(
                trap_digest(secret, segment), meter[segment]
            )
        return ends

    assert asyncio.run(play()) in (SEGMENTS // 2, SEGMENTS // 2 + 1)


def test_bait_looks_like_work(performer: Performer, sieve: JobSpec) -> None:
    """Its segments cost what the job's cost, within what the terms allow for, and no two states are equal."""

    async def play() -> None:
        honest = await performer.perform(sieve)
        found = await performer.bait(sieve, SECRETS[0], SEGMENTS)
        units = [it.units for it in found[1:]]
        assert len({it.state for it in found}) == SEGMENTS + 1
        assert max(units) <= sieve.fuel // sieve.segments
        assert all(0.9 * honest.units[0] < it <= honest.units[0] for it in units[:-1])
        assert 0 < units[-1] <= honest.units[0]
        assert found == await performer.bait(sieve, SECRETS[0], SEGMENTS)

    asyncio.run(play())


def test_a_job_of_one_segment_is_bait_at_its_end(performer: Performer, sieve: JobSpec) -> None:
    """Whatever the secret: there is nothing else to be drawn."""
    for secret in SECRETS:
        _, end = asyncio.run(performer.bait(sieve, secret, 1))
        assert end.state == trap_digest(secret, 1)


def test_bait_is_made_of_modules_only(performer: Performer, sieve: JobSpec) -> None:
    """A native checkpoint that could be run on from isn't made."""
    other = msgspec.structs.replace(
        sieve, check="pinned", image=Image("base", b"\x07" * 32, "python"), fuel=0
    )
    with pytest.raises(CannotSandbox):
        asyncio.run(performer.bait(other, SECRETS[0], 4))
