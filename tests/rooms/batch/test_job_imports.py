"""SkyPilot, dstack and Akash files: the same job where they say the same, and a name for everything that can't be."""

import msgspec
import pytest

from clusterai.work.batch.core.imports import parse, recounted
from clusterai.work.batch.core.located import BadFile
from clusterai.work.batch.core.request import Mount, Wishes
from clusterai.work.batch.spec import GIB, Resources

PIN = "@sha256:" + "ab" * 32

SKYPILOT = f"""\
name: train my model
workdir: ~/code
num_nodes: 1
resources:
  infra: aws/us-east-1
  cpus: 4+
  memory: 16+
  disk_size: 50
  accelerators: H100:2
  use_spot: true
  image_id: docker:pytorch/pytorch{PIN}
  job_recovery: {{max_restarts_on_errors: 2}}
envs:
  EPOCHS: 3
file_mounts:
  /data: ./data
  ~/sky_workdir/extra.txt: extra.txt
setup: pip list
run: |
  python train.py --epochs $EPOCHS
"""

DSTACK = """\
type: task
name: train
python: 3.11
env:
  - EPOCHS=3
files:
  - .:.
  - local_path: ../data
    path: data
commands:
  - echo begin
  - python train.py
resources:
  cpu: x86:2..8
  memory: 4GB..
  disk: {size: 20GB..}
  gpu: nvidia:A100:80GB:1
max_duration: 2h
max_price: 3.5
spot_policy: auto
retry: {on_events: [no-capacity, interruption], duration: 1h}
"""

AKASH = f"""\
version: "2.0"
services:
  Worker:
    image: debian{PIN}
    command: [sh, -c]
    args:
      - 'echo hello > hello.txt'
    env: [GREETING=hello]
    expose:
      - port: 80
profiles:
  compute:
    small:
      resources:
        cpu: {{units: 500m}}
        memory: {{size: 512Mi}}
        storage:
          - size: 1Gi
          - name: more
            size: 1Gi
        gpu: {{units: 1, attributes: {{vendor: {{nvidia: [{{model: a100, ram: 40Gi}}]}}}}}}
  placement:
    west:
      attributes: {{region: us-west}}
      pricing: {{small: {{denom: uakt, amount: 100}}}}
deployment:
  Worker:
    west: {{profile: small, count: 1}}
"""


def test_a_skypilot_task():
    """Resources, files, environment, setup and run arrive; clouds, spots and absolute places are named."""
    job = parse(SKYPILOT)
    assert (job.format, job.name) == ("skypilot", "train-my-model")
    assert job.argv == ("/bin/bash", "-c", "python train.py --epochs $EPOCHS\n")
    assert job.setup == ("/bin/bash", "-c", "pip list")
    assert job.image == "pytorch/pytorch" + PIN
    assert dict(job.env) == {
        "EPOCHS": "3",
        "SKYPILOT_NUM_NODES": "1",
        **{f"SKYPILOT_{part}NODE_RANK": "0" for part in ("", "SETUP_")},
        **{f"SKYPILOT_{part}NODE_IPS": "127.0.0.1" for part in ("", "SETUP_")},
        **{f"SKYPILOT_{part}NUM_GPUS_PER_NODE": "2" for part in ("", "SETUP_")},
    }
    assert job.mounts == (
        Mount("", "~/code", 2),
        Mount("data", "./data", 16),
        Mount("extra.txt", "extra.txt", 17),
    )
    assert job.resources == Resources(
        cpu_milli=4000, memory_bytes=16 * GIB, disk_bytes=50 * GIB, gpus=2, gpu="H100"
    )
    assert job.wishes.retries == 2
    assert [(it.line, it.what) for it in job.unhonoured] == [
        (5, "resources.infra"),
        (10, "resources.use_spot"),
        (16, "file_mounts./data"),
    ]


def test_a_dstack_task():
    """The low end of each range is promised; prices in dollars, spots and Python's version are named."""
    job = parse(DSTACK)
    assert (job.format, job.name) == ("dstack", "train")
    assert job.argv == ("/bin/bash", "-c", "echo begin && python train.py")
    assert dict(job.env) == {
        "DSTACK_GPUS_NUM": "1",
        "DSTACK_GPUS_PER_NODE": "1",
        "DSTACK_MASTER_NODE_IP": "127.0.0.1",
        "DSTACK_NODES_IPS": "127.0.0.1",
        "DSTACK_NODES_NUM": "1",
        "DSTACK_NODE_RANK": "0",
        "DSTACK_RUN_NAME": "train",
        "EPOCHS": "3",
    }
    assert job.mounts == (Mount("", ".", 7), Mount("data", "../data", 8))
    assert job.resources == Resources(
        cpu_milli=2000, memory_bytes=4 * GIB, disk_bytes=20 * GIB, time_s=7200, gpus=1, gpu="A100"
    )
    assert job.wishes == Wishes(retries=3, retry_until_placed=True)
    assert [it.what.rpartition(".")[2] for it in job.unhonoured] == [
        *("python", "cpu", "gpu", "gpu", "max_price", "spot_policy", "duration")
    ]
    assert "dollars" in job.unhonoured[4].why


def test_an_akash_deployment():
    """One service with its profile; ports, regions and prices in another token are named."""
    job = parse(AKASH)
    assert (job.format, job.name, job.image) == ("akash", "Worker", "debian" + PIN)
    assert job.argv == ("sh", "-c", "echo hello > hello.txt")
    assert job.env == (("GREETING", "hello"),)
    assert job.resources == Resources(
        cpu_milli=500, memory_bytes=GIB // 2, disk_bytes=2 * GIB, gpus=1, gpu="a100"
    )
    assert [it.what.rpartition(".")[2] for it in job.unhonoured] == ["expose", "ram", "attributes", "pricing"]


def named(text: str) -> list[tuple[int, str]]:
    return [(it.line, it.what) for it in parse(text).unhonoured]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "num_nodes: 1\nsetup: pip install -r a.txt\nrun: |\n  wandb $SKYPILOT_TASK_ID $SKYPILOT_NODE_RANK\n",
            [(2, "setup: pip install"), (3, "$SKYPILOT_TASK_ID")],
        ),
        ("num_nodes: 1\nrun: echo ${SKYPILOT_TASK_ID:-none} && SKYPILOT_USER=me x\n", []),
        ("num_nodes: 1\nenvs: {SKYPILOT_TASK_ID: a}\nrun: echo $SKYPILOT_TASK_ID\n", []),
        (
            "type: task\nprobes: [{type: http}]\ncommands:\n  - git clone x y\n  - mpirun --hostfile ${DSTACK_MPI_HOSTFILE}\n",
            [(2, "probes"), (4, "commands: git clone"), (4, "$DSTACK_MPI_HOSTFILE")],
        ),
        ("type: task\ncommands: [echo $DSTACK_RUN_NAME]\n", [(2, "$DSTACK_RUN_NAME")]),
        (
            "type: task\ninstances: [a]\nbackend_options: [{type: aws}]\ncommands: [x]\n",
            [(2, "instances"), (3, "backend_options")],
        ),
        (
            "num_nodes: 1\nrun: x\nresources: {local_disk: nvme:1000+, priority_class: high, job_recovery: {strategy: FAILOVER}}\n",
            [
                (3, "resources.local_disk"),
                (3, "resources.priority_class"),
                (3, "resources.job_recovery.strategy"),
            ],
        ),
    ],
)
def test_what_their_machines_have_and_jobs_lack_is_named(text: str, expected: list[tuple[int, str]]):
    """Variables that those tools set, what is fetched from a network, questions of health: with the line, and what to do."""
    assert named(text) == expected


def test_paths_are_filled_in_before_files_are_looked_for():
    """SkyPilot puts `envs` into workdir and file_mounts; a variable without a value is an error."""
    text = "envs: {SIZE: 13b, AT: tmp}\nworkdir: ~/${AT}\nfile_mounts:\n  /ckpt/${SIZE}: ./$AT/x\nrun: y\n"
    assert parse(text).mounts == (Mount("", "~/tmp", 2), Mount("ckpt/13b", "./tmp/x", 4))
    with pytest.raises(BadFile, match="under envs"):
        parse(text.replace("AT: tmp", "OTHER: tmp"))


def test_commands_are_chained_as_dstack_does():
    """Blocks of several lines end in a line break, which no shell takes before `&&`."""
    job = parse("type: task\ncommands:\n  - |\n    a\n    b\n  - server &\n  - c\n")
    assert job.argv[-1] == "a\nb && { server & } && c"


def test_other_gpus_on_the_command_line_are_told_to_the_program():
    """What the format says of its GPUs follows --gpu; what the file says itself doesn't."""
    job = parse("type: task\nenv: [N=0]\ncommands: [x]\n")
    two = recounted(msgspec.structs.replace(job, resources=Resources(gpus=2)), 0)
    assert dict(two.env)["DSTACK_GPUS_NUM"] == "2"
    assert dict(two.env)["N"] == "0"


def test_akash_memory_is_not_a_disk():
    """`class: ram` at /dev/shm is named, and not counted as disk."""
    text = AKASH.replace(
        "          - name: more\n            size: 1Gi\n",
        "          - {name: shm, size: 1Gi, attributes: {persistent: false, class: ram}}\n",
    ).replace("    env:", "    params: {storage: {shm: {mount: /dev/shm}}}\n    env:")
    job = parse(text)
    assert job.resources.disk_bytes == GIB
    assert next(it.what for it in job.unhonoured) == "params.storage.shm"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("num_nodes: 2\nrun: x\n", "2 machines"),
        ("num_nodes: 1\n", "has no 'run'"),
        ("num_nodes: 1\nrun: x\nsecrets: {A: b}\n", "public"),
        ("num_nodes: 1\nrun: x\nservice: {port: 1}\n", "begins and ends"),
        ("num_nodes: 1\nrun: x\nvolumes: {/a: b}\n", "outlive"),
        ("num_nodes: 1\nrun: x\nfile_mounts: {/data: s3://bucket}\n", "no network"),
        ("num_nodes: 1\nrun: x\nfile_mounts: {/data: {source: a}}\n", "no network"),
        ("num_nodes: 1\nrun: x\nworkdir: {url: a}\n", "clone it here"),
        ("num_nodes: 1\nrun: x\nenvs: {A: }\n", "must be whole"),
        ("num_nodes: 1\nrun: x\nresources: {any_of: [{cpus: 1}]}\n", "alternatives"),
        ("num_nodes: 1\nrun: x\nresources: {accelerators: [A100, H100]}\n", "alternatives"),
        ("num_nodes: 1\nrun: x\nresources: {ports: 80}\n", "connections"),
        ("num_nodes: 1\nrun: x\nresources: {image_id: docker:ubuntu}\n", "@sha256"),
        ("num_nodes: 1\nrun: x\nresources: {image_id: ami-123}\n", "@sha256"),
        ("num_nodes: 1\nrun: x\nresources: {cpu: 1}\n", "did you mean 'cpus'"),
        ("type: service\nport: 80\ncommands: [x]\n", "model add"),
        ("type: dev-environment\nide: vscode\n", "rent"),
        ("type: task\ncommands: [x]\nport: 80\n", "belongs to a dstack service"),
        ("type: task\ncommands: [x]\nide: vscode\n", "belongs to a dstack dev-environment"),
        ("type: task\ncommands: [x]\ngroups: [{nodes: 1}]\n", "groups of machines"),
        ("type: task\ncommands: [x]\nresources: {disk: {}}\n", "has no 'size'"),
        ("type: task\ncommands: [x]\nfiles: [{path: a}]\n", "has no 'local_path'"),
        ("resources: {cpus: 4+}\nrun: x\nmanaged_secrets: [a]\n", "public"),
        ("volume_mounts: [{path: a}]\nrun: x\n", "outlive"),
        (
            AKASH.replace("      resources:", "      resources:\n    other:\n      resources:"),
            "has no 'resources'",
        ),
        (
            AKASH.replace("    env:", "    params: {storage: {d: {mount: /data}}}\n    env:"),
            "at /data",
        ),
        ("type: task\n", "no 'commands'"),
        ("type: task\ncommands: [x]\nnodes: 2\n", "2 machines"),
        ("type: task\ncommands: [x]\nports: [80]\n", "connections"),
        ("type: task\ncommands: [x]\nprivileged: true\n", "rights"),
        ("type: task\ncommands: [x]\nenv: [TOKEN]\n", "TOKEN="),
        ("type: task\ncommands: [x]\nimage: debian:12\n", "@sha256"),
        ("type: task\ncommands: [x]\nrepos: ['https://github.com/a/b']\n", "clone it here"),
        ("type: task\ncommands: [x]\nresources: {gpu: 'A100,H100'}\n", "alternatives"),
        ("type: task\ncommands: [x]\nentrypoint: y\n", "commands"),
        (AKASH.replace("count: 1", "count: 3"), "runs 3"),
        (AKASH.replace(PIN, ":12"), "@sha256"),
        (AKASH.replace("profile: small", "profile: big"), "no compute profile"),
        (AKASH.replace("  Worker:\n    west", "  Other:\n    west"), "doesn't deploy"),
        (AKASH.replace('"2.0"', '"1.0"'), "2.0"),
        (AKASH.replace("  Worker:\n    image", "  Second: {image: x}\n  Worker:\n    image"), "2 services"),
        (
            AKASH.replace(
                "            size: 1Gi\n",
                "            size: 1Gi\n            attributes: {persistent: true}\n",
            ),
            "outlives",
        ),
        (
            AKASH.replace("    command: [sh, -c]\n    args:\n      - 'echo hello > hello.txt'\n", ""),
            "no command",
        ),
        (AKASH.replace("    env:", "    credentials: {host: x}\n    env:"), "secret"),
        ("services: {}\nprofiles: {}\n", "has no 'deployment'"),
    ],
)
def test_what_would_be_another_job_is_an_error(text: str, word: str):
    """More machines, servers, secrets, moving tags, alternatives: never silently something else."""
    with pytest.raises(BadFile) as caught:
        parse(text)
    assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "before"),
    [
        *((SKYPILOT, before) for before in ("name:", "  infra:")),
        *((DSTACK, before) for before in ("name:", "  cpu:")),
        *(
            (AKASH, before)
            for before in ("services:", "    image:", "  compute:", "      resources:", "        cpu:")
        ),
        *((AKASH, before) for before in ("      attributes:",)),
    ],
)
def test_no_field_is_dropped_silently(text: str, before: str):
    """A field that the format doesn't have is an error, at every level that is read."""
    indent = before[: len(before) - len(before.lstrip())]
    with pytest.raises(BadFile, match="zzz"):
        parse(text.replace(before, f"{indent}zzz: 1\n{before}", 1))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            """
name: t
resources:
  accelerators: [A100, H100]
  image_id: docker:python:3.11
  ports: 8080
num_nodes: 2
workdir: {url: git@here}
file_mounts:
  /a: s3://bucket/a
  /b: gs://bucket/b
run: echo
""",
            [4, 5, 6, 7, 8, 10, 11],
        ),
        (
            """
type: task
image: python:3.11
entrypoint: /bin/sh
nodes: 2
ports: [80]
repos: [https://here/repo]
files: [../out]
resources: {gpu: "A100,H100"}
commands: [echo]
""",
            [3, 4, 5, 6, 7, 8, 9],
        ),
        (
            AKASH.replace("    env:", "    credentials: {host: x}\n    env:").replace("count: 1", "count: 3"),
            None,
        ),
    ],
)
def test_all_that_is_wrong_is_told_at_once(text: str, lines: list[int] | None):
    """In the order of the file: nobody mends a file one error at a time."""
    with pytest.raises(BadFile) as caught:
        parse(text)
    every = (caught.value, *caught.value.others)
    assert all(it.why for it in every)
    found = [it.line for it in every]
    assert found == sorted(found)
    assert found == lines if lines else len(found) == 2
