"""The client's calls about jobs, over HTTP."""

import pytest
from blake3 import blake3

from clusterai.sdk import ApiError, Client, Unreachable
from clusterai.sdk.jobs import Job, JobEvent, JobRequest, Jobs, Task, packed, unpacked
from tests.rooms.batch.fakegateway import FakeGateway, running


def take(gateway: FakeGateway, request: JobRequest) -> Job:
    task = Task(task=0, replica=0, spec="0x" + unpacked(request.job).hex(), state="running")
    job = Job(
        id=f"0x{len(gateway.jobs)}", name="x", check="pinned", state="running", created_s=1, tasks=[task]
    )
    gateway.events[job.id] = [
        JobEvent(seq=1, at_s=1, kind="log", stream="stdout", text=packed(b"hello\n")),
        JobEvent(seq=2, at_s=1, kind="end"),
    ]
    return job


def test_content_goes_up_and_comes_back():
    """By its digest, in pieces; what has another digest is refused."""
    raw = bytes(range(256)) * 8192
    digest = blake3(raw).digest()
    with running() as gateway, Client(gateway.url) as client:
        jobs = Jobs(client)
        assert not jobs.has(digest)
        jobs.put(digest, raw)
        assert jobs.has(digest)
        assert b"".join(jobs.get(digest)) == raw
        jobs.put(blake3(b"ab").digest(), iter([b"a", b"b"]))
        with pytest.raises(ApiError) as caught:
            jobs.put(digest, b"other")
        assert (caught.value.status, caught.value.code) == (422, "digest-differs")
        with pytest.raises(ApiError) as caught:
            b"".join(jobs.get(bytes(32)))
        assert caught.value.status == 404


def test_a_job_is_submitted_once_followed_and_cancelled():
    """The same idempotency key is the same job; events end; a job can be cancelled."""
    with running() as gateway, Client(gateway.url) as client:
        gateway.perform = take
        jobs = Jobs(client)
        request = JobRequest(job=packed(b"\x01"))
        first = jobs.submit(request, "k")
        assert jobs.submit(request, "k") == first
        assert jobs.submit(request, "l").id != first.id
        assert [it.id for it in jobs.list().jobs] == ["0x1", "0x0"]
        events = list(jobs.follow(first.id))
        assert [it.kind for it in events] == ["log", "end"]
        assert events[0].log() == b"hello\n"
        assert not first.is_over
        gone = jobs.cancel(first.id)
        assert gone.is_over
        assert gone.tasks[0].reason == "CANCELLED_BEFORE_START"
        assert jobs.show(first.id).state == "closed"
        with pytest.raises(ApiError):
            jobs.show("0x9")


def test_a_stream_that_breaks_off_is_told():
    """Events without an end mean that the gateway went away."""
    with running() as gateway, Client(gateway.url) as client:
        gateway.perform = take
        job = Jobs(client).submit(JobRequest(job=""))
        gateway.events[job.id].pop()
        with pytest.raises(Unreachable, match="broke off"):
            list(Jobs(client).follow(job.id))
