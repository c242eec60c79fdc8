"""A machine with NVIDIA's cards as far as files and one program go: `nvidia-smi`, device files, a CDI specification. No card is behind it."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from clusterai.work.cluster.adapters.cards import Cards

UUIDS = tuple(f"GPU-{at}1b2c3d4-0000-4000-8000-00000000000{at}" for at in range(4))
FAKE_MAJOR = 240
"""Set aside by the kernel for local use: nobody answers there, so an open is refused for want of a card, not by a wall."""
SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")

CARD = """<gpu id="0000{bus}">
<product_name>NVIDIA H100 80GB HBM3</product_name><mig_mode><current_mig>{mig}</current_mig></mig_mode>
<uuid>{uuid}</uuid><minor_number>{minor}</minor_number>
<fb_memory_usage><total>81559 MiB</total><reserved>551 MiB</reserved><used>{used} MiB</used></fb_memory_usage>
<utilization><gpu_util>7 %</gpu_util></utilization><temperature><gpu_temp>41 C</gpu_temp></temperature>
<gpu_power_readings><power_draw>N/A</power_draw><instant_power_draw>71.25 W</instant_power_draw></gpu_power_readings>
<processes>{processes}</processes></gpu>"""
PROCESS = """<process_info><gpu_instance_id>N/A</gpu_instance_id><pid>{pid}</pid><type>C</type>
<process_name>/usr/bin/{name} --steps 9</process_name><used_memory>{mib} MiB</used_memory></process_info>"""


def listing(
    count: int,
    users: Sequence[tuple[int, int, str]] = (),
    mig: Sequence[int] = (),
    used: int = 0,
    minors: Sequence[int] = (),
) -> str:
    """What `nvidia-smi -q -x` prints.

    Args:
        users: (card, pid, name).
    """
    cards = "".join(
        CARD.format(
            bus=f"0000:{at + 1:02X}:00.0",
            mig="Enabled" if at in mig else "Disabled",
            uuid=UUIDS[at],
            minor=minors[at] if minors else at,
            used=used,
            processes="".join(
                PROCESS.format(pid=pid, name=name, mib=900) for card, pid, name in users if card == at
            ),
        )
        for at in range(count)
    )
    head = '<?xml version="1.0" ?><!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">'
    return f"{head}<nvidia_smi_log><driver_version>570.86.15</driver_version>{cards}</nvidia_smi_log>"


class Machine:
    """With so many cards; `says` changes what its driver tells."""

    def __init__(self, folder: Path, count: int, monkeypatch: pytest.MonkeyPatch, spec: bool = True) -> None:
        self.folder, self.count = folder, count
        self.dev, self.cdi, self.driver, self.locks = (
            folder / it for it in ("dev", "cdi", "driver", "locks")
        )
        programs = folder / "bin"
        for it in (self.dev, self.cdi, self.driver, self.locks, programs):
            it.mkdir(mode=0o755)
        for at in range(count):
            self._node(f"nvidia{at}", at)
        for at, name in enumerate(SHARED):
            self._node(name, 100 + at)
        self._node("nvidia-modeset", 110)
        (self.driver / "libcuda.so.570.86.15").write_bytes(b"a library")
        (self.driver / "libGLX_nvidia.so.570.86.15").write_bytes(b"draws")
        self.says(listing(count))
        program = programs / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nexec cat {folder}/listing.xml\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        if spec:
            (self.cdi / "nvidia.yaml").write_text(self.spec())

    def _node(self, name: str, minor: int) -> None:
        path = self.dev / name
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(FAKE_MAJOR, minor))
        path.chmod(0o666)

    def says(self, listing: str) -> None:
        aside = self.folder / "listing.new"
        aside.write_text(listing)
        aside.rename(self.folder / "listing.xml")

    def spec(self) -> str:
        """As `nvidia-ctk cdi generate` writes it, with sources that lie elsewhere."""
        own = "".join(
            f"- name: {name}\n  containerEdits:\n    deviceNodes:\n"
            f"    - path: /dev/nvidia{at}\n      hostPath: {self.dev}/nvidia{at}\n    - path: /dev/dri/card{at}\n"
            for at in range(self.count)
            for name in (f'"{at}"', UUIDS[at])
        )
        nodes = "".join(
            f"  - path: /dev/{name}\n    hostPath: {self.dev}/{name}\n"
            for name in ("nvidia-modeset", *SHARED)
        )
        mounts = "".join(
            f"  - hostPath: {source}\n    containerPath: {place}\n    options: [ro, nosuid, nodev, rbind]\n"
            for source, place in (
                (self.driver / "libcuda.so.570.86.15", "/usr/lib/x86_64-linux-gnu/libcuda.so.570.86.15"),
                (
                    self.driver / "libGLX_nvidia.so.570.86.15",
                    "/usr/lib/x86_64-linux-gnu/libGLX_nvidia.so.570.86.15",
                ),
                ("/run/nvidia-persistenced/socket", "/run/nvidia-persistenced/socket"),
            )
        )
        hook = (
            "  hooks:\n  - hookName: createContainer\n    path: /usr/bin/nvidia-cdi-hook\n"
            "    args: [nvidia-cdi-hook, update-ldcache]\n"
        )
        return (
            f"---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n{own}containerEdits:\n"
            f"  env:\n  - NVIDIA_VISIBLE_DEVICES=void\n  deviceNodes:\n{nodes}{hook}  mounts:\n{mounts}"
        )

    def cards(self, count: int, *named: str) -> Cards:
        return Cards(named, count, (self.cdi,), self.locks)
