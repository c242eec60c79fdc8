"""Which system calls a tenant may make, as the program that the kernel runs on each of them.

A list of what is refused, on top of namespaces that already make most of it useless: it takes away the parts of the
kernel where escapes were found and which batch work has no use for. Numbers past the newest call that was looked at
when this was written are refused too ("no such call"), so that a newer kernel doesn't open a door by itself.

Refused calls fail with an error and don't kill: programs probe, and fall back.

Source: docker's and flatpak's default profiles; the format is classic BPF over `struct seccomp_data` (seccomp(2)).
"""

import struct

import msgspec

EPERM = 1
ENOSYS = 38
EAFNOSUPPORT = 97

_LD_W_ABS = 0x20
_JEQ = 0x15
_JGE = 0x35
_JSET = 0x45
_RET = 0x06
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL = 0x80000000

_NR, _ARCH, _ARG0, _ARG1, _ARG2 = 0, 4, 16, 24, 32

NEW_NAMESPACES = 0x7E020080
"""CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
TIOCSTI = 0x5412
TIOCLINUX = 0x541C
FAMILIES = (1, 2, 10, 16)
"""Unix, IPv4, IPv6, netlink: all of them end inside the tenant's own network. Virtual machine sockets (40) would not."""
LAST_CALL = 466
"""removexattrat, Linux 6.13: the newest call looked at."""

REFUSED = {
    # other processes' memory and execution
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    # the kernel's keys are not of a namespace
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # mounts, roots, namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    # the kernel itself
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "syslog": (103, 116), "acct": (163, 89),
    "personality": (135, 92), "lookup_dcookie": (212, 18), "vhangup": (153, 58), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "fanotify_init": (300, 262),
    # the host's clocks
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    # where pages lie on the host
    "mbind": (237, 235), "set_mempolicy": (238, 237), "migrate_pages": (256, 238), "move_pages": (279, 239),
}  # fmt: skip
"""Name to number on x86_64 and on aarch64."""
UNCOUNTED = {"memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194)}
"""Memory that belongs to no process: without a control group nobody would count it."""
RLIMIT_CORE = 4
_X86_ONLY = {
    "iopl": 172,
    "ioperm": 173,
    "modify_ldt": 154,
    "uselib": 134,
    "ustat": 136,
    "sysfs": 139,
    "_sysctl": 156,
}


class Machine(msgspec.Struct, frozen=True):
    audit_arch: int
    column: int
    clone: int
    clone3: int
    socket: int
    socketpair: int
    ioctl: int
    setrlimit: int
    prlimit64: int


MACHINES = {
    "x86_64": Machine(
        0xC000003E, 0, clone=56, clone3=435, socket=41, socketpair=53, ioctl=16, setrlimit=160, prlimit64=302
    ),
    "aarch64": Machine(
        0xC00000B7,
        1,
        clone=220,
        clone3=435,
        socket=198,
        socketpair=199,
        ioctl=29,
        setrlimit=164,
        prlimit64=261,
    ),
}


def _op(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, k)


def refused_numbers(machine: str, *, counted: bool = True) -> list[int]:
    column = MACHINES[machine].column
    numbers = [pair[column] for pair in (REFUSED if counted else REFUSED | UNCOUNTED).values()]
    if machine == "x86_64":
        numbers += _X86_ONLY.values()
    return sorted(numbers)


def program(machine: str, *, counted: bool = True) -> bytes:
    """The filter for one kind of processor, as `bwrap --seccomp` and `prctl` take it.

    Args:
        counted: whether a control group counts the task's memory.

    Raises:
        KeyError: a processor whose calls were not looked at: nothing is run there.
    """
    its = MACHINES[machine]
    refuse, absent, allow = (_op(_RET, _ERRNO | EPERM), _op(_RET, _ERRNO | ENOSYS), _op(_RET, _ALLOW))
    ops = [
        # Another architecture's numbers mean other calls: 32-bit programs end here.
        _op(_LD_W_ABS, _ARCH),
        _op(_JEQ, its.audit_arch, yes=1),
        _op(_RET, _KILL),
        _op(_LD_W_ABS, _NR),
        # x32 is in this range as well (numbers from 0x40000000).
        _op(_JGE, LAST_CALL + 1, no=1),
        absent,
        # clone3 takes its flags from memory, which a filter can't read. Libraries fall back to clone.
        _op(_JEQ, its.clone3, no=1),
        absent,
    ]
    for number in refused_numbers(machine, counted=counted):
        ops += [_op(_JEQ, number, no=1), refuse]
    ops += [
        _op(_JEQ, its.clone, no=4),
        _op(_LD_W_ABS, _ARG0),
        _op(_JSET, NEW_NAMESPACES, no=1),
        refuse,
        allow,
        # Typing into somebody's terminal.
        _op(_JEQ, its.ioctl, no=5),
        _op(_LD_W_ABS, _ARG1),
        _op(_JEQ, TIOCSTI, yes=1),
        _op(_JEQ, TIOCLINUX, no=1),
        refuse,
        allow,
        # A limit of one byte for core dumps keeps the host's crash handler from being started as root; zero would not.
        _op(_JEQ, its.setrlimit, no=4),
        _op(_LD_W_ABS, _ARG0),
        _op(_JEQ, RLIMIT_CORE, no=1),
        refuse,
        allow,
        _op(_JEQ, its.prlimit64, no=8),
        _op(_LD_W_ABS, _ARG1),
        _op(_JEQ, RLIMIT_CORE, no=5),
        _op(_LD_W_ABS, _ARG2),
        _op(_JEQ, 0, no=2),
        _op(_LD_W_ABS, _ARG2 + 4),
        _op(_JEQ, 0, yes=1),
        refuse,
        allow,
        _op(_JEQ, its.socket, yes=1),
        _op(_JEQ, its.socketpair, no=len(FAMILIES) + 2),
        _op(_LD_W_ABS, _ARG0),
    ]
    for place, family in enumerate(FAMILIES):
        ops.append(_op(_JEQ, family, yes=len(FAMILIES) - place))
    ops += [_op(_RET, _ERRNO | EAFNOSUPPORT), allow]
    return b"".join(ops)


def run(filter_: bytes, arch: int, number: int, args: tuple[int, ...] = ()) -> int:
    """What the kernel would answer: the filter's twin, so that tests can ask it about every call.

    Returns: the action, as in `SECCOMP_RET_*`.
    """
    data = struct.pack("<IIQ6Q", number, arch, 0, *(*args, 0, 0, 0, 0, 0, 0)[:6])
    accumulator, at = 0, 0
    while True:
        code, yes, no, k = struct.unpack_from("<HBBI", filter_, 8 * at)
        at += 1
        if code == _RET:
            return k
        if code == _LD_W_ABS:
            (accumulator,) = struct.unpack_from("<I", data, k)
            continue
        held = {_JEQ: accumulator == k, _JGE: accumulator >= k, _JSET: bool(accumulator & k)}[code]
        at += yes if held else no
