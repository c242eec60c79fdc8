"""`clusterai run`, `jobs` and `job` against a gateway that really performs what it is sent."""

import asyncio
import io
import json
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterai.cli import say
from clusterai.cli.failure import Exit
from clusterai.cli.jobs.begun import TAKEN_UP_S, Begun
from clusterai.cli.main import run
from clusterai.protocol.ids import Digest
from clusterai.sandbox import BlobStore
from clusterai.sandbox.adapters.wasm import sample
from clusterai.sdk.jobs import Jobs
from clusterai.sdk.jobshapes import (
    Job,
    JobAudit,
    JobEvent,
    JobRequest,
    LeaseAudit,
    Plan,
    Step,
    Task,
    packed,
    unpacked,
)
from clusterai.work.batch.adapters.base import host_base
from clusterai.work.batch.adapters.perform import Performer
from clusterai.work.batch.core.plan import Offer, plan
from clusterai.work.batch.core.request import Wishes
from clusterai.work.batch.core.tree import Tree
from clusterai.work.batch.spec import GIB, Image, JobArray, JobSpec, decode_array
from tests.rooms.batch import fakegateway
from tests.rooms.batch.fakegateway import FakeGateway

PROVIDER = "0x" + "ab" * 20
EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "jobs"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLUSTERAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.delenv("CLUSTERAI_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    # A console keeps the stream that it was made with, and each test has its own.
    monkeypatch.setattr(say, "_consoles", {})
    return tmp_path


@pytest.fixture
def gateway(home: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[FakeGateway]:
    with fakegateway.running() as found:
        monkeypatch.setenv("CLUSTERAI_BASE_URL", found.url)
        found.plan = planned
        found.perform = performed(home)
        yield found


def offers() -> list[Offer]:
    bases = (("python", host_base().digest()),)
    return [
        Offer(
            provider=PROVIDER,
            bases=bases,
            cpu_milli=4000,
            memory_bytes=8 * GIB,
            disk_bytes=8 * GIB,
            stake_wei=10**12,
        )
    ]


def planned(request: JobRequest) -> Plan:
    wishes = Wishes(
        max_price_wei=request.max_price_wei, deadline_s=request.deadline_s, replicas=request.replicas
    )
    return plan(decode_array(unpacked(request.job)), wishes, offers())


def performed(home: Path) -> fakegateway.Perform:
    def perform(gateway: FakeGateway, request: JobRequest) -> Job:
        array = decode_array(unpacked(request.job))
        store = BlobStore(home / "provider")
        for content in gateway.content.values():
            store.put(content)
        events: list[JobEvent] = []
        tasks: list[Task] = []

        def add(**fields: Any) -> None:
            events.append(JobEvent(seq=len(events) + 1, at_s=1, **fields))

        async def one(performer: Performer, at: int) -> None:
            spec = array.task(at)
            done = await performer.perform(
                spec,
                on_log=lambda stream, data: add(kind="log", stream=stream, text=packed(data)),
                on_segment=lambda segment, _: add(
                    kind="progress", task=at, segment=segment, segments=spec.segments
                ),
            )
            add(kind="state", task=at, state="committed")
            for digest, _ in done.output.contents():
                gateway.content[digest] = store.read(digest)
            gateway.content[done.output.digest()] = done.output.canonical()
            tasks.append(
                Task(
                    task=at,
                    replica=0,
                    spec="0x" + spec.digest().hex(),
                    state="committed",
                    lease="0x" + "cd" * 32,
                    provider=PROVIDER,
                    segment=len(done.units),
                    segments=spec.segments,
                    units=sum(done.units),
                    total_wei=1000,
                    output="0x" + done.output.digest().hex(),
                    exit_code=done.exit_code,
                    why=done.why,
                )
            )

        async def all_of_them() -> None:
            performer = Performer(store, home / "node")
            for at in range(len(array)):
                await one(performer, at)

        # The handler has a thread of its own, and so may have a loop.
        worker = threading.Thread(target=lambda: asyncio.run(all_of_them()))
        worker.start()
        worker.join()
        add(kind="end")
        job_id = "0x" + array.digest().hex()
        gateway.events[job_id] = events
        return Job(
            id=job_id,
            name=array.job.name,
            check=array.job.check,
            state="committed",
            created_s=1,
            tasks=tasks,
            held_wei=2000,
        )

    return perform


def write(home: Path, text: str, name: str = "job.yaml") -> str:
    (home / name).write_text(text)
    return name


def test_a_job_from_file_to_outputs(home: Path, gateway: FakeGateway, capsys: pytest.CaptureFixture[str]):
    """Planned, sent, followed, fetched, checked, told: and its logs are where it printed them."""
    (home / "in.txt").write_text("hello\n")
    job = write(
        home,
        "name: up\nrun: tr a-z A-Z < in.txt > out.txt; echo said; echo cried >&2\ninputs: {in.txt: in.txt}\noutputs: [out.txt]\nclass: pinned\n",
    )
    assert run(["run", job, "--yes", "--output", "got"]) == Exit.OK
    said = capsys.readouterr()
    assert (home / "got" / "out.txt").read_text() == "HELLO\n"
    assert "said\n" in said.out
    assert "cried\n" in said.err
    for word in (PROVIDER[:10], "pinned", "in all", "exit code", "0", "clusterai job verify"):
        assert word in said.out + said.err
    assert [path for method, path in gateway.asked if method == "PUT"]
    sent = len(gateway.content)
    assert run(["run", job, "--yes", "-q", "--output", "again"]) == Exit.OK
    assert len(gateway.content) <= sent + 2


def test_outputs_come_before_the_lease_is_closed(
    home: Path, gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
):
    """As soon as every task has them; with --wait only when nothing is open any more."""

    def slow(gateway: FakeGateway, request: JobRequest) -> Job:
        job = performed(home)(gateway, request)
        last = gateway.events[job.id].pop()
        later = JobEvent(seq=last.seq, at_s=2, kind="log", stream="stdout", text=packed(b"much later\n"))
        gateway.events[job.id] += [later, msgspec.structs.replace(last, seq=last.seq + 1)]
        return job

    gateway.perform = slow
    assert run(["run", "-y", "-q", "-o", "a", write(home, "run: echo x > f\n")]) == Exit.OK
    assert "much later" not in capsys.readouterr().out
    assert run(["run", "-y", "-q", "-o", "b", "--wait", "--name", "other", "job.yaml"]) == Exit.OK
    assert "much later" in capsys.readouterr().out


def test_json_is_one_answer_on_stdout(home: Path, gateway: FakeGateway, capsys: pytest.CaptureFixture[str]):
    """Logs go to stderr then, and the answer names job and folders."""
    assert (
        run(["run", "--json", "--yes", "--name", "j", "--", "/bin/sh", "-c", "echo said; echo x > y; exit 3"])
        == Exit.FAILED
    )
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert answer["job"]["tasks"][0]["exit_code"] == 3
    assert (home / answer["outputs"]["0"] / "y").read_text() == "x\n"
    assert "said" in said.err


def test_detached_and_looked_at_later(home: Path, gateway: FakeGateway, capsys: pytest.CaptureFixture[str]):
    """The id alone; then list, show, logs, fetch, cancel."""
    assert run(["run", "-d", "-y", "-q", write(home, "run: echo said > f; echo said\nname: d\n")]) == Exit.OK
    job_id = capsys.readouterr().out.splitlines()[-1]
    assert job_id in gateway.jobs
    assert run(["jobs"]) == Exit.OK
    assert job_id[:18] in capsys.readouterr().out
    assert run(["jobs", "show", job_id[:18]]) == Exit.OK
    assert job_id in capsys.readouterr().out
    assert run(["jobs", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["jobs"][0]["id"] == job_id
    assert run(["jobs", "show", job_id]) == Exit.OK
    assert "committed" in capsys.readouterr().out
    assert run(["jobs", "logs", job_id]) == Exit.OK
    assert capsys.readouterr().out == "said\n"
    assert run(["jobs", "fetch", job_id, "-o", "f"]) == Exit.OK
    assert (home / "f" / "f").read_text() == "said\n"
    capsys.readouterr()
    assert run(["jobs", "cancel", job_id, "--yes"]) == Exit.OK
    assert "CANCELLED_BEFORE_START" in capsys.readouterr().out
    assert run(["jobs", "show", "0x99"]) == Exit.NOT_FOUND
    assert "next: clusterai jobs\n" in capsys.readouterr().err


class Killed(BaseException):
    """The process is gone: nothing of it catches this."""


def killed(monkeypatch: pytest.MonkeyPatch, where: str, job: str, *, after: bool) -> None:
    """A run that dies at a call to the gateway: before it is sent, or when the answer is on its way."""
    whole = getattr(Jobs, where)

    def dies(self: Jobs, *given: Any) -> Any:
        if after:
            whole(self, *given)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Jobs, where, dies)
        with pytest.raises(Killed):
            run(["run", job, "-y", "-q"])


def test_a_run_that_died_unanswered_is_taken_up(
    home: Path, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """`kill -9` before, while and after it is submitted: the same again is one job, and the next one is another."""
    job = write(home, "run: echo true > f\nname: x\ninputs: {in.txt: in.txt}\n")
    write(home, "hello", "in.txt")
    for where, after in (("put", True), ("submit", False), ("submit", True)):
        killed(monkeypatch, where, job, after=after)
    assert len(gateway.jobs) == 1
    assert run(["run", job, "-y", "-q", "-o", "got"]) == Exit.OK
    assert len(gateway.jobs) == 1
    assert (home / "got" / "f").read_text() == "true\n"
    assert run(["run", job, "-y", "-q", "-o", "again"]) == Exit.OK
    assert len(gateway.jobs) == 2
    capsys.readouterr()


def test_a_run_that_died_on_the_way_is_told_of(
    home: Path, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """`kill -9` while it is followed or fetched: the same again names the job that is there, before it asks."""
    job = write(home, "run: echo true > f\nname: x\n")
    killed(monkeypatch, "follow", job, after=False)
    (known,) = gateway.jobs
    running = msgspec.structs.replace(
        gateway.jobs[known], tasks=[msgspec.structs.replace(gateway.jobs[known].tasks[0], output="")]
    )
    whole, gateway.jobs[known] = gateway.jobs[known], running
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run(["run", job]) != Exit.OK
    assert f"clusterai jobs logs {known}" in capsys.readouterr().err
    gateway.jobs[known] = whole
    assert run(["run", job, "-y", "-o", "got"]) == Exit.OK
    assert f"clusterai jobs fetch {known}" in capsys.readouterr().err
    assert run(["run", job, "-y", "-o", "again"]) == Exit.OK
    assert known not in capsys.readouterr().err


def test_runs_beside_each_other_are_jobs_of_their_own(home: Path):
    """Whoever starts the same twice at once wants it twice; and what is older than an hour is begun anew."""
    array = JobArray(
        JobSpec(
            name="x",
            check="unverified",
            image=Image("base", bytes(32), "python"),
            argv=("x",),
            seed=1,
            clock_s=1000,
        )
    )
    request = JobRequest(job="")
    again = JobArray(msgspec.structs.replace(array.job, seed=2, clock_s=2000))
    with (
        Begun(home, "g", array, request, drawn=True) as one,
        Begun(home, "g", again, request, drawn=True) as other,
    ):
        one.note(array)
        assert other.taken_up(again, 2000) == again
    with Begun(home, "g", again, request, drawn=True) as later:
        assert later.taken_up(again, 2000) == array
        assert later.taken_up(again, 1000 + TAKEN_UP_S) == again
    with Begun(home, "other gateway", again, request, drawn=True) as elsewhere:
        assert elsewhere.taken_up(again, 2000) == again


def test_an_array_is_one_job(home: Path, gateway: FakeGateway):
    """A task per file, each with its outputs in a folder of its own."""
    (home / "data").mkdir()
    for name in ("b", "a"):
        (home / "data" / f"{name}.txt").write_text(name)
    job = write(
        home,
        "name: many\nrun: cat in.txt > out.txt; echo $CLUSTERAI_TASK/$CLUSTERAI_TASKS >> out.txt\neach: {in.txt: data/*.txt}\noutputs: [out.txt]\n",
    )
    assert run(["run", job, "-y", "-q", "-o", "got"]) == Exit.OK
    assert (home / "got" / "0000" / "out.txt").read_text() == "a0/2\n"
    assert (home / "got" / "0001" / "out.txt").read_text() == "b1/2\n"


def test_dry_run_sends_nothing(home: Path, gateway: FakeGateway, capsys: pytest.CaptureFixture[str]):
    """A plan for people or programs; what a foreign file asks for in vain is named."""
    job = write(home, "num_nodes: 1\nresources: {use_spot: true, cpus: 2+}\nrun: 'true'\n", "sky.yaml")
    assert run(["run", job, "--dry-run"]) == Exit.OK
    said = capsys.readouterr().out
    assert "use_spot" in said
    assert "nothing here is taken back" in said
    assert run(["run", job, "--dry-run", "--json"]) == Exit.OK
    answer = json.loads(capsys.readouterr().out)
    assert answer["plan"]["placed"] is True
    assert answer["unhonoured"][0]["what"] == "resources.use_spot"
    assert {path for _, path in gateway.asked} == {"/v1/jobs/plan"}


def test_what_can_not_be_placed_is_told_with_its_cure(
    home: Path, gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
):
    """Every reason, and the cheapest change; exit code 1, and nothing was sent."""
    job = write(home, "run: 'true'\nresources: {cpu: 8}\n")
    assert run(["run", job, "--yes"]) == Exit.FAILED
    said = capsys.readouterr()
    assert "it has 4 cores" in said.out
    assert "resources.cpu: 8 → 4" in said.err
    assert run(["run", job, "--dry-run", "--json", "--max-price", "0.000001"]) == Exit.FAILED
    answer = json.loads(capsys.readouterr().out)["plan"]
    assert {it["code"] for it in answer["reasons"]} == {"cpu", "price"}
    assert {path for _, path in gateway.asked} == {"/v1/jobs/plan"}


def test_waiting_for_a_provider_is_the_gateways(home: Path, gateway: FakeGateway):
    """With --retry-until-placed the job is handed over though nobody can take it now."""
    job = write(home, "run: 'true'\nresources: {cpu: 8}\n")
    assert run(["run", job, "-d", "-y", "-q", "--retry-until-placed", "--max-price", "1"]) == Exit.OK
    assert len(gateway.jobs) == 1


def test_outputs_that_were_altered_are_not_written(
    home: Path, gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
):
    """Content under another's address: exit code 6, and no file."""
    assert run(["run", "-d", "-y", "-q", write(home, "run: echo true > f\nname: x\n")]) == Exit.OK
    job_id = capsys.readouterr().out.splitlines()[-1]
    listing = bytes.fromhex(gateway.jobs[job_id].tasks[0].output[2:])
    entry = msgspec.msgpack.decode(gateway.content[listing], type=Tree).entries[0]
    gateway.content[entry.digest] = b"fals\n"
    assert run(["jobs", "fetch", job_id, "-o", "got"]) == Exit.UNTRUE
    assert not (home / "got").exists()


def test_replicas_that_differ_are_told(home: Path, gateway: FakeGateway, capsys: pytest.CaptureFixture[str]):
    """Two providers, two outputs: somebody is wrong, and nothing is written."""
    assert (
        run(["run", "-d", "-y", "-q", write(home, "run: echo true > f\nname: x\nclass: pinned\n")]) == Exit.OK
    )
    job_id = capsys.readouterr().out.splitlines()[-1]
    job = gateway.jobs[job_id]
    other = msgspec.structs.replace(job.tasks[0], replica=1, output="0x" + "11" * 32)
    gateway.jobs[job_id] = msgspec.structs.replace(job, tasks=[*job.tasks, other])
    assert run(["jobs", "fetch", job_id]) == Exit.UNTRUE
    assert "replicas" in capsys.readouterr().err


def test_the_audits_story_is_told(home: Path, gateway: FakeGateway, capsys: pytest.CaptureFixture[str]):
    """From the commitment to the last move; fraud is exit code 6."""
    lease = LeaseAudit(
        lease="0xaa",
        task=0,
        replica=0,
        provider=PROVIDER,
        check="pinned",
        segments=20,
        verdict="matched",
        root="0xbb",
        beacon="0xcc",
        rate_ppm=96_000,
        audited=True,
        segment=7,
        steps=[Step(what="auditor_drawn", at_s=5, block=9, by="0xdd", detail={"attempt": 0})],
    )
    name = "0x" + "01" * 32
    gateway.audits[name] = JobAudit(job=name, leases=[lease])
    assert run(["job", "verify", name]) == Exit.OK
    said = capsys.readouterr().out
    for word in (
        "0xbb",
        "0xcc",
        "segment 7 (with probability 9.6 %)",
        "matched",
        "auditor drawn",
        "attempt=0",
    ):
        assert word in said
    gateway.audits[name] = JobAudit(
        job=name, leases=[msgspec.structs.replace(lease, verdict="fraud", reason="FRAUD")]
    )
    assert run(["job", "verify", name, "--json"]) == Exit.UNTRUE
    assert json.loads(capsys.readouterr().out)["leases"][0]["reason"] == "FRAUD"


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["run"], "clusterai run job.yaml"),
        (["run", "gone.yaml"], "can't be read"),
        (["run", "bad.yaml"], "bad.yaml, line 2: resources"),
        (["run", "bad.yaml", "more"], "one word too many"),
        (["run", "gone.wasm"], "can't be read"),
        (["run", "text.wasm"], "no module"),
        (["run", "files.yaml"], "files.yaml, line 3"),
        (["run", "secret.yaml"], "looks like a secret"),
        (["run", "empty.yaml"], "matches no file"),
        (["run", "--class", "sure", "--", "true"], "wasm, pinned, unverified"),
        (["run", "--memory", "lots", "--", "true"], "no size"),
        (["run", "--env", "A", "--", "true"], "--env A=…"),
        (["run", "--max-price", "lots", "--", "true"], "next: --max-price 2.5"),
        (["run", "--max-hourly", "-1", "--", "true"], "next: --max-hourly 0.5"),
        (["run", "--deadline", "soon", "--", "true"], "next: --deadline 2h"),
        (["run", "--gpu", "H100:x", "--", "true"], "--gpu H100:2"),
        (["run", "--memory", "1MB", "--", "true"], "memory is 1MB; make it between 16MB and 4TB"),
        (["run", "--time", "31d", "--", "true"], "time is 31d; make it between 1s and 30d"),
        (["run", "--cpus", "5000", "--", "true"], "cpus is 5000; make it between 0.1 and 1024"),
        (["run", "big.yaml"], "memory is 8TB; make it between 16MB and 4TB"),
        (["run", "--replicas", "17", "--", "true"], "replicas"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_or_file(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], word: str
):
    """Exit code 2, with line and cure, before anything is asked of anyone."""
    write(home, "run: x\nresources: {memory: much}\n", "bad.yaml")
    write(home, "run: x\nresources: {memory: 8TB}\n", "big.yaml")
    write(home, "run: x\ninputs:\n  a: gone.txt\n", "files.yaml")
    write(home, "run: x\nenvs: {HF_TOKEN: abc}\n", "secret.yaml")
    write(home, "run: x\neach: {a: '*.gone'}\n", "empty.yaml")
    write(home, "no module", "text.wasm")
    assert run(words) == Exit.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert word in said.err


def test_it_runs_here(home: Path, capsys: pytest.CaptureFixture[str]):
    """Without any network: segments, commitment, an audit of one of them, outputs."""
    assert (
        run(
            [
                "run",
                "--local",
                str(EXAMPLES / "pi.yaml"),
                "--segments",
                "2",
                "--env",
                "DIGITS=50",
                "-o",
                "got",
            ]
        )
        == Exit.OK
    )
    said = capsys.readouterr().out
    assert (home / "got" / "pi.txt").read_text() == "31415926535897932384626433832795028841971693993751"
    assert "2 of 2" in said
    assert "was run again: the same state" in said


def test_a_program_that_is_not_deterministic_is_found_out_here(
    home: Path, capsys: pytest.CaptureFixture[str]
):
    """Exit code 6, and what to do."""
    job = write(home, "run: head -c 8 /dev/urandom > f\nclass: pinned\n")
    assert run(["run", "--local", job]) == Exit.UNTRUE
    assert "isn't deterministic" in capsys.readouterr().out


def test_a_module_runs_here(home: Path, capsys: pytest.CaptureFixture[str]):
    """With arguments; what it prints is its output."""
    (home / "sieve.wasm").write_bytes(sample("sieve"))
    assert run(["run", "--local", "--json", "sieve.wasm", "4"]) == Exit.OK
    ran = json.loads(capsys.readouterr().out)["tasks"][0]
    assert (ran["segments"], ran["audit"]["verdict"]) == (5, "matched")
    assert (home / ran["folder"] / "stdout").read_text().strip() == "23000"


@pytest.mark.parametrize("name", ["words.yaml", "train.sky.yaml", "primes.yaml"])
def test_the_examples_run(home: Path, name: str):
    """As they stand."""
    assert run(["run", "--local", "-q", str(EXAMPLES / name)]) == Exit.OK


def test_the_examples_module_is_the_samples():
    """What its source compiles to."""
    assert (EXAMPLES / "primes.wasm").read_bytes() == sample("sieve")


def test_what_this_machine_can_not_do(home: Path, capsys: pytest.CaptureFixture[str]):
    """More cores than there are: the reason, and exit code 1."""
    assert run(["run", "--local", "--cpus", "1000", "--", "true"]) == Exit.FAILED
    assert "cores" in capsys.readouterr().err


def test_content_is_addressed_by_blake3(home: Path, gateway: FakeGateway):
    """What the gateway was sent is what its addresses say."""
    from blake3 import blake3

    assert run(["run", "-d", "-y", "-q", "--", "true"]) == Exit.OK
    assert all(Digest(blake3(content).digest()) == name for name, content in gateway.content.items())
