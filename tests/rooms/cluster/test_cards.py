"""Cards that are lent to a rented machine: which, to whom, and nothing of the others. No real card is behind these."""

import json
from pathlib import Path

import pytest

from clusterai.sandbox import Bind, Root
from clusterai.work.cluster.adapters.cards import NoCards
from clusterai.work.cluster.core import cdi, granting
from clusterai.work.cluster.core.cards import Card, Nonsense, class_of, intruders, parsed, telling, unfit
from clusterai.work.cluster.core.foreign import Sample
from tests.rooms.cluster.fakecards import UUIDS, Machine, listing


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, 4, monkeypatch)


def test_the_drivers_listing_is_read():
    """Who a card is, which file is its, who is on it, and how warm it is; what it doesn't tell is None."""
    first, second = parsed(listing(2, users=[(1, 77, "python3")], mig=[0], used=12).encode())
    assert (first.uuid, first.minor, first.bus) == (UUIDS[0], 0, "0000:01:00.0")
    assert (first.is_split, first.driver, first.memory_bytes) == (True, "570.86.15", 81559 << 20)
    assert [(it.pid, it.name, it.used_bytes) for it in second.users] == [(77, "python3", 900 << 20)]
    assert telling(second) == (
        "card 1 (NVIDIA H100 80GB HBM3, GPU-11b2c3d4): 12 of 81559 MiB used, 7 % busy, 41 °C, 71 W"
    )
    bare = parsed(b"<nvidia_smi_log><gpu id='1'><uuid>GPU-1</uuid></gpu></nvidia_smi_log>")[0]
    assert (bare.minor, bare.watts, bare.memory_bytes, bare.users) == (None, None, 0, ())


@pytest.mark.parametrize("said", [b"", b"No devices were found", b"<a><gpu/></a>", b"<a>" + b" " * (9 << 20)])
def test_another_listing_is_refused(said: bytes):
    """What can't be read names no card."""
    with pytest.raises(Nonsense):
        parsed(said)


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("Tesla T4", "t4"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA RTX A6000", "a6000"),
        ("", ""),
    ],
)
def test_a_card_is_called_as_renters_ask_for_it(name: str, called: str):
    """The driver's name is long, and never typed."""
    assert class_of(name) == called


def test_two_renters_cannot_have_one_card(machine: Machine):
    """Villain: two nodes of one machine that offer the same cards. Who comes second gets others, or none; given back, they can be had again."""
    one, two = machine.cards(4), machine.cards(4)
    first = one.take(3)
    with pytest.raises(NoCards, match=r"2 cards are asked for, 1 can be had: .*rented to somebody else"):
        two.take(2)
    second = two.take(1)
    assert not first.uuids & second.uuids
    assert first.give_back() == ""
    assert two.take(3).uuids == first.uuids
    second.give_back()


def test_only_the_named_cards_are_lent(machine: Machine):
    """By UUID, its beginning, or the driver's number; a name that no card has lends none."""
    taken = machine.cards(2, UUIDS[2][:12], "3").take(2)
    assert taken.uuids == {UUIDS[2], UUIDS[3]}
    taken.give_back()
    with pytest.raises(NoCards, match="0 can be had"):
        machine.cards(1, "GPU-ffffffff").take(1)
    assert machine.cards(5).why_not(busy=False) == "5 GPUs are offered, the driver finds 4"


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (listing(1, users=[(0, 1, "miner")]), "used by miner"),
        (listing(1, mig=[0]), "only whole ones are lent"),
        (listing(1, used=4096), "4096 MiB of card 0"),
        (listing(0), "the driver finds 0"),
        ("No devices were found", "something else"),
        (listing(1, minors=[3]), "so it is old: nvidia-ctk cdi generate"),
    ],
)
def test_only_a_clean_and_whole_card_is_handed_over(machine: Machine, says: str, why: str):
    """Its owner is told what to do, its renter why not, and the machine isn't offered meanwhile."""
    machine.says(says)
    with pytest.raises(NoCards, match=why):
        machine.cards(1).take(1)
    assert machine.cards(1).why_not(busy=False)
    machine.says(listing(1))
    assert machine.cards(1).why_not(busy=False) == ""


def test_what_is_left_on_a_card_is_told_and_the_next_renter_refused(machine: Machine):
    """A process that outlives its stay keeps the card from everybody."""
    taken = machine.cards(1).take(1)
    machine.says(listing(4, users=[(0, 1, "left")]))
    assert "used by left" in taken.give_back(0.0)
    with pytest.raises(NoCards, match="used by left"):
        machine.cards(1).take(1)


def test_a_device_file_that_tenants_cannot_open_is_refused_with_its_cure(machine: Machine):
    """A driver set up for one group of users would fail inside, without a word."""
    (machine.dev / "nvidiactl").chmod(0o660)
    with pytest.raises(NoCards, match=r"chmod 666 .*nvidiactl"):
        machine.cards(1).take(1)
    (machine.dev / "nvidiactl").unlink()
    with pytest.raises(NoCards, match="nvidia-modprobe"):
        machine.cards(1).take(1)


def test_without_a_driver_nothing_is_lent(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    """And a driver that ends with an error is quoted."""
    (machine.folder / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho driver mismatch >&2; exit 18\n")
    assert machine.cards(1).why_not(busy=True) == "driver mismatch"
    monkeypatch.setenv("PATH", "")
    assert "nvidia-smi isn't installed" in machine.cards(1).why_not(busy=True)


def test_a_specification_gives_computing_and_no_more(machine: Machine):
    """The rented card's file and the driver's three; no display, no socket of a daemon, no hook, and libraries for computing alone."""
    root = machine.cards(1, UUIDS[1]).take(1).root(Root(name="ray", binds=(Bind("/usr", "/usr"),)))
    assert [it.dest for it in root.devices] == [
        "/dev/nvidia1",
        "/dev/nvidiactl",
        "/dev/nvidia-uvm",
        "/dev/nvidia-uvm-tools",
    ]
    assert [it.dest for it in root.binds] == ["/usr", "/nvidia/libcuda.so.570.86.15"]
    assert root.links == (
        ("libcuda.so.570.86.15", "/nvidia/libcuda.so.1"),
        ("libcuda.so.570.86.15", "/nvidia/libcuda.so"),
    )
    assert root.env == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "0",
        "LD_LIBRARY_PATH": "/nvidia",
    }


def test_without_a_specification_the_driver_and_the_systems_libraries_do():
    """What lies in shown folders is there already."""
    shown = (
        "\tlibcuda.so.1 (libc6,x86-64) => /usr/lib/libcuda.so.1\n\tlibc.so.6 (libc6) => /usr/lib/libc.so.6\n"
    )
    assert granting.in_cache("2 libs found in cache\n" + shown) == (
        ("/usr/lib/libcuda.so.1", "/usr/lib/libcuda.so.1"),
    )
    grant = granting.Grant(
        2, (("/dev/nvidia0", "/dev/nvidia0"),), granting.in_cache(shown), ("0000:01:00.0",), True
    )
    root = granting.granted(Root(name="ray", binds=(Bind("/usr", "/usr"),)), grant)
    assert [it.dest for it in root.binds] == ["/usr"]
    assert root.env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert root.links == ()
    assert root.emptied == ("/proc/driver/nvidia/gpus",)
    assert root.regained == (Bind(*["/proc/driver/nvidia/gpus/0000:01:00.0"] * 2),)


@pytest.mark.parametrize(
    "raw",
    [b"\xff", b"- 1", b"kind: [", b"kind: 1\ndevices: 3", b"a: &a [*a]", b"x" * (5 << 20), b"[" * 600],
)
def test_what_is_no_specification_is_refused(raw: bytes):
    """Whatever lies in the folder ends in words."""
    with pytest.raises(cdi.BadSpec):
        cdi.read(raw)


def test_other_vendors_devices_are_no_concern_of_ours(machine: Machine):
    """Nor does a broken file of theirs keep ours from being read; a broken one of NVIDIA's is told."""
    assert cdi.read(json.dumps({"kind": "vendor.com/net", "devices": []}).encode()) is None
    (machine.cdi / "vendor.json").write_text("[")
    assert machine.cards(1).why_not(busy=False) == ""
    (machine.cdi / "nvidia.yaml").write_text("[")
    assert "nvidia-ctk cdi generate" in machine.cards(1).why_not(busy=False)


def card(*users: tuple[int, str]) -> Card:
    return parsed(listing(1, users=[(0, *it) for it in users]).encode())[0]


def process(pid: int, parent: int, name: str = "python3") -> Sample:
    return Sample(pid, parent, 0, name, 0)


def test_who_is_on_a_rented_card_beside_its_tenant_is_foreign():
    """Villain: an owner who computes on a rented card. The tenant's own, what descends from it and the owner's list aren't held against it."""
    everybody = [
        process(1, 0, "init"),
        process(50, 1),
        process(51, 50),
        process(60, 1, "miner"),
        process(61, 1, "Xorg"),
    ]
    on_it = card((51, "python3"), (60, "miner"), (61, "Xorg"), (99, "gone"))
    found = intruders([on_it], [UUIDS[0]], everybody, {50}, frozenset({"Xorg"}))
    assert [it.pid for it in found] == [60]
    assert intruders([on_it], [UUIDS[1]], everybody, {50}, frozenset()) == ()
    assert intruders([on_it], [UUIDS[0]], everybody, {50}, frozenset({"*"})) == ()


def test_what_the_node_itself_has_on_a_card_is_no_hindrance():
    """A validator's test ends by itself."""
    assert unfit(card((70, "python3")), {70}) is None
    assert unfit(card((70, "python3"), (71, "miner")), {70}) is not None
