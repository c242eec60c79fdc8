"""The system call filter, asked call by call through its own small interpreter."""

import pytest

from clusterai.sandbox.core import seccomp
from clusterai.sandbox.core.seccomp import EAFNOSUPPORT, ENOSYS, EPERM, MACHINES, REFUSED, program, run

ALLOW, ERRNO, KILL = 0x7FFF0000, 0x50000, 0x80000000


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_what_is_listed_is_refused_and_nothing_else(machine: str) -> None:
    """Every number up to the last known one is allowed unless it is listed."""
    its, filter_ = MACHINES[machine], program(machine)
    listed = set(seccomp.refused_numbers(machine))
    special = {its.clone3, its.socket, its.socketpair}
    for number in range(seccomp.LAST_CALL + 1):
        if number in special:
            continue
        assert run(filter_, its.audit_arch, number) == (ERRNO | EPERM if number in listed else ALLOW), number


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_other_architectures_and_newer_calls_have_no_door(machine: str) -> None:
    """32-bit calls end the process; x32 numbers and calls newer than the list don't exist."""
    its, filter_ = MACHINES[machine], program(machine)
    assert run(filter_, 0x40000003, 11) == KILL
    for number in (seccomp.LAST_CALL + 1, 0x40000000 + 59, 0x40000000 + 101, 2**32 - 1):
        assert run(filter_, its.audit_arch, number) == ERRNO | ENOSYS
    assert run(filter_, its.audit_arch, its.clone3) == ERRNO | ENOSYS


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_arguments_are_looked_at(machine: str) -> None:
    """A thread may be made and no namespace; IP and Unix sockets and no others; no typing into terminals."""
    its, filter_ = MACHINES[machine], program(machine)
    assert run(filter_, its.audit_arch, its.clone, (0x003D0F00,)) == ALLOW
    for flag in (0x00020000, 0x10000000, 0x20000000, 0x40000000, 0x02000000, 0x04000000, 0x08000000, 0x80):
        assert run(filter_, its.audit_arch, its.clone, (flag | 0x11,)) == ERRNO | EPERM
    for call in (its.socket, its.socketpair):
        for family in range(64):
            wanted = ALLOW if family in (1, 2, 10, 16) else ERRNO | EAFNOSUPPORT
            assert run(filter_, its.audit_arch, call, (family, 1, 0)) == wanted
    for request, wanted in (
        (0x5412, ERRNO | EPERM),
        (0x541C, ERRNO | EPERM),
        (0x5401, ALLOW),
        (0xFFFF_0000_5412, ERRNO | EPERM),
    ):
        assert run(filter_, its.audit_arch, its.ioctl, (0, request)) == wanted


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_the_limit_of_core_dumps_stays(machine: str) -> None:
    """It may be asked for, and other limits may be set; wherever the new one lies in memory, this one may not."""
    its, filter_ = MACHINES[machine], program(machine)
    refused = ERRNO | EPERM
    for resource, wanted in ((4, refused), (7, ALLOW), (0, ALLOW)):
        assert run(filter_, its.audit_arch, its.setrlimit, (resource, 0x7FFF0000)) == wanted
        for pointer in (0x7FFF0000, 1 << 32, 1 << 47):
            assert run(filter_, its.audit_arch, its.prlimit64, (0, resource, pointer, 0)) == wanted
        assert run(filter_, its.audit_arch, its.prlimit64, (0, resource, 0, 0x7FFF0000)) == ALLOW


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_memory_that_nobody_counts_is_refused(machine: str) -> None:
    """Without a control group there is no memory outside of processes; with one there may be."""
    its = MACHINES[machine]
    for numbers in seccomp.UNCOUNTED.values():
        number = numbers[its.column]
        assert run(program(machine, counted=False), its.audit_arch, number) == ERRNO | EPERM
        assert run(program(machine), its.audit_arch, number) == ALLOW


def test_every_listed_call_has_both_numbers() -> None:
    """A call without a number on a machine would be a hole there."""
    assert all(len(numbers) == 2 for numbers in REFUSED.values())
    assert len(program("x86_64")) % 8 == 0
    assert len(program("x86_64")) // 8 < 4096
    with pytest.raises(KeyError):
        program("riscv64")
