"""Job files: what is read, and how an error points at the line."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clusterai.protocol import units
from clusterai.work.batch.core import located
from clusterai.work.batch.core.imports import parse
from clusterai.work.batch.core.located import BadFile
from clusterai.work.batch.core.request import Mount, Wishes
from clusterai.work.batch.spec import GIB, MIB, Resources

WHOLE = """\
name: pi
image: python
run: |
  python pi.py
setup: [pip, install, x]
envs:
  DIGITS: 1000
  VERSION: 3.10
workdir: code
inputs:
  data/in.csv: ./in.csv
  model: 0x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
outputs: [results/, stdout]
resources: {cpu: 500m, memory: 512MB, disk: 2, time: 1h30m, processes: 8}
class: pinned
checkpoints: 19
seed: 7
max_price: 2.5
max_hourly: 1 CLAI
deadline: 2h
replicas: 2
retries: 1
retry_until_placed: yes
"""


def test_all_that_a_job_file_says():
    """Every field arrives; texts that look like numbers stay as they were written."""
    job = parse(WHOLE)
    assert (job.format, job.name, job.image, job.check) == ("clusterai", "pi", "python", "pinned")
    assert job.argv == ("/bin/sh", "-ec", "python pi.py\n")
    assert job.setup == ("pip", "install", "x")
    assert job.env == (("DIGITS", "1000"), ("VERSION", "3.10"))
    assert [(mount.path, mount.source, mount.line) for mount in job.mounts] == [
        ("", "code", 9),
        ("data/in.csv", "./in.csv", 11),
        ("model", "0x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", 12),
    ]
    assert (job.outputs, job.stdout) == (("results", "stdout"), True)
    assert job.resources == Resources(
        cpu_milli=500, memory_bytes=512 * MIB, disk_bytes=2 * GIB, time_s=5400, processes=8
    )
    assert (job.segments, job.seed) == (20, 7)
    assert job.wishes == Wishes(
        max_price_wei=2_500_000_000,
        max_hourly_wei=1_000_000_000,
        deadline_s=7200,
        replicas=2,
        retries=1,
        retry_until_placed=True,
    )
    assert job.unhonoured == ()


def test_a_module_is_a_job():
    """A WASM module with arguments, over many inputs."""
    job = parse("wasm: pi.wasm\nargs: [a, 1]\nfuel: 1000\nsteps: 5\neach: {in.txt: 'data/*.txt'}\n")
    assert (job.image, job.argv, job.fuel, job.steps) == ("pi.wasm", ("a", "1"), 1000, 5)
    assert job.each == Mount("in.txt", "data/*.txt", 5)


WRONG = [
    ("", 1, "empty"),
    ("run: x\nrum: y\n", 2, "did you mean 'run'"),
    ("run: x\nrun: y\n", 2, "twice"),
    ("name: x\n", 1, "what to run"),
    ("run: x\nwasm: y.wasm\n", 1, "twice what to run"),
    ("run: ' '\n", 1, "empty"),
    ("wasm: y.txt\n", 1, ".wasm"),
    ("wasm: y.wasm\nimage: python\n", 2, "needs no image"),
    ("run: x\nargs: [y]\n", 2, "wasm"),
    ("run: x\nimage: debian:12\n", 2, "@sha256"),
    ("run: x\nimage: A B\n", 2, "tar:0x"),
    ("run: x\nclass: trusted\n", 2, "wasm, pinned, unverified"),
    ("run: x\nenvs: {A: }\n", 2, "has no value"),
    ("run: x\nenvs: [A]\n", 2, "write A="),
    ("run: x\nenvs: [A=1, A=2]\n", 2, "second time"),
    ("run: x\nenvs: text\n", 2, "must be a table"),
    ("run: x\nresources:\n  memory: lots\n", 3, "512MB"),
    ("run: x\nresources:\n  cpu: many\n", 3, "0.5"),
    ("run: x\nresources:\n  cpu: 0.0001\n", 3, "cores"),
    ("run: x\nresources:\n  cpu: 0.05\n", 3, "between 0.1"),
    ("run: x\nresources:\n  time: soon\n", 3, "10m"),
    ("run: x\nresources:\n  gpu: '!'\n", 3, "H100"),
    ("run: x\nresources:\n  cores: 3\n", 3, "resources has"),
    ("run: x\nresources: [1]\n", 2, "must be a table"),
    ("run: x\ninputs:\n  ../up: here\n", 3, "'../up'"),
    ("run: x\ninputs:\n  /abs: here\n", 3, "relative"),
    ("run: x\neach: {a: 1, b: 2}\n", 2, "PATH: PATTERN"),
    ("run: x\noutputs: [a, a]\n", 2, "second time"),
    ("run: x\noutputs: .\n", 2, "leave outputs out"),
    ("run: x\nsegments: 0\n", 2, "between 1"),
    ("run: x\nsegments: 2\ncheckpoints: 1\n", 1, "n + 1"),
    ("run: x\nseed: -1\n", 2, "between 0"),
    ("run: x\nseed: half\n", 2, "whole number"),
    ("run: x\nexpected: 0x12\n", 2, "32 bytes"),
    ("run: x\nmax_price: lots\n", 2, "decimal"),
    ("run: x\ndeadline: 9000d\n", 2, "a year"),
    ("run: x\nreplicas: 99\n", 2, "between 1 and 16"),
    ("run: x\nretry_until_placed: maybe\n", 2, "true or false"),
    ("run: x\nnetwork: {a: b}\n", 2, "must be a text"),
    ("- run\n", 1, "must be a table"),
    ("run: [x\n", 2, "isn't YAML"),
    ("run: x\n--- \nrun: y\n", 2, "isn't YAML"),
    ("run: !!python/object/apply:os.system [ls]\nfoo: 1\n", 2, "isn't a field"),
    ("a: &a {b: c}\nrun:\n  <<: *a\n", 3, "merges"),
    ("? [a]\n: b\n", 1, "isn't a text"),
    ("\0", 1, "isn't YAML"),
]


@pytest.mark.parametrize(("text", "line", "word"), WRONG, ids=[f"{at:02}" for at in range(len(WRONG))])
def test_an_error_names_the_line(text: str, line: int, word: str):
    """Line, value, reason and cure."""
    with pytest.raises(BadFile) as caught:
        parse(text)
    assert caught.value.line == line
    assert word in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "run: " + "x" * located.MOST_BYTES,
        "[" * 5000,
        "a: &a [" + "x," * 200 + "]\nb: &b [" + "*a," * 200 + "]\nrun: [" + "*b," * 200 + "]\n",
        "a: " + "[" * 40 + "]" * 40,
        "a: &a [*a]\n",
    ],
    ids=["long", "open", "laughs", "deep", "itself"],
)
def test_a_file_can_not_grow(text: str):
    """Length, depth, and what aliases multiply are bounded."""
    with pytest.raises(BadFile):
        parse(text)


@given(st.text(max_size=200))
@example("run: x\nname: \ud800")
@example("run: 0o7\nseed: 0x")
def test_any_text_is_a_job_or_a_named_error(text: str):
    """Nothing but BadFile comes out."""
    with contextlib.suppress(BadFile):
        parse(text)


FIELD = st.sampled_from(
    [
        *(
            "name",
            "image",
            "run",
            "envs",
            "resources",
            "file_mounts",
            "outputs",
            "each",
            "seed",
            "segments",
            "type",
        ),
        *(
            "commands",
            "services",
            "profiles",
            "deployment",
            "num_nodes",
            "workdir",
            "accelerators",
            "cpus",
            "gpu",
        ),
        *(
            "memory",
            "compute",
            "web",
            "units",
            "size",
            "count",
            "profile",
            "files",
            "retry",
            "max_price",
            "deadline",
        ),
    ]
)
SCALAR = st.sampled_from(
    ["1", "task", "2.0", "x", "", "4+", "H100:2", "2..4", "512Mi", "yes", "-1", "~", "1h", "web"]
)
DOCUMENT = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD, inner, max_size=5),
    max_leaves=30,
)


@given(DOCUMENT)
def test_any_document_of_known_words_is_a_job_or_a_named_error(document: object):
    """However the fields of the four formats are put together."""
    import yaml

    with contextlib.suppress(BadFile):
        parse(yaml.safe_dump(document))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        ("1k", 1024),
        ("1.5 GiB", 3 * GIB // 2),
        ("2GB", 2 * GIB),
        ("512Mi", 512 * MIB),
        ("7b", 7),
    ],
)
def test_sizes(text: str, size: int):
    """Powers of 1024 with and without an i."""
    assert units.size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), ("1w1s", 604_801)],
)
def test_durations(text: str, seconds: int):
    """Numbers are seconds."""
    assert units.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1x", "1e999", "nan", "9" * 20, "1 h 2"])
def test_what_is_no_amount(text: str):
    """Empty, negative, of no unit, endless."""
    for reader in (units.size, units.duration, units.milli):
        with pytest.raises(units.BadUnit):
            reader(text)


@given(st.integers(0, 2**50))
def test_what_is_shown_can_be_read(amount: int):
    """Sizes are shown within a tenth of a percent, durations with two units at most."""
    assert abs(units.size(units.show_size(amount)) - amount) <= amount / 1000 + 1
    assert len(units.show_duration(amount).split()) <= 4
