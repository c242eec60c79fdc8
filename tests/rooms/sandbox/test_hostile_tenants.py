"""Tenants who attack: the host's files, the network, other processes, every resource, the end of the lease, and the walls.

Each attack is a real program. What it could do if the walls failed is bounded in the program itself (so many forks, so many
bytes), so that a failing test costs a red line and not the machine. Targets on the host are our own: a file with a secret, a
process that holds one, a listener on loopback.
"""

import asyncio
import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from clusterai.sandbox import Leash, Limits, Outcome, Reason, RootFs, Task
from clusterai.sandbox.adapters.cgroup import ControlGroups, NoControlGroups
from tests.rooms.sandbox.boxes import folder, native, python, store, uncounted

SECRET = "node-key-7f3a9c"


@pytest.fixture(scope="module")
def victim() -> Generator["Victim"]:
    """What there is to steal and to break."""
    found = Victim()
    yield found
    found.close()


class Victim:
    """A node's folder with a key that anybody may read, a process with a secret, listeners of every kind."""

    def __init__(self) -> None:
        self.folder = Path(mkdtemp(prefix="clusterai-victim-"))
        self.folder.chmod(0o755)
        self.key = self.folder / "key.json"
        self.key.write_text(SECRET)
        self.key.chmod(0o666)
        self.blob = store().path(store().put(SECRET.encode() + b"-of-another-job"))
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "import sys; print(); sys.stdout.flush(); sys.stdin.read()"],
            env={"SECRET": SECRET},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.caught: list[str] = []
        self._servers: list[socket.socket] = []
        self.port = self._listen(socket.AF_INET, ("127.0.0.1", 0))
        self.port6 = self._listen(socket.AF_INET6, ("::1", 0)) if socket.has_ipv6 and _has_ipv6() else 0
        self.unix = str(self.folder / "node.sock")
        self._listen(socket.AF_UNIX, self.unix)
        Path(self.unix).chmod(0o777)
        self.abstract = f"\0clusterai-victim-{os.getpid()}"
        self._listen(socket.AF_UNIX, self.abstract)

    def _listen(self, family: socket.AddressFamily, address: object) -> int:
        server = socket.socket(family)
        server.bind(address)  # pyright: ignore[reportArgumentType]
        server.listen()
        self._servers.append(server)
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()
        return 0 if family is socket.AF_UNIX else int(server.getsockname()[1])

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                self.caught.append(str(server.getsockname()))
                connection.close()

    def well(self) -> None:
        """Nothing of the host was touched, and nothing of a tenant's is left on it."""
        assert self.key.read_text() == SECRET
        assert self.process.poll() is None
        assert self.caught == []
        assert native().living() == []
        assert list(native().folder.iterdir()) == []
        assert not _mounts_with("clusterai-stage")
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "print(1)"], stdout=subprocess.PIPE
        ) as alive:
            assert alive.communicate()[0] == b"1\n"

    def close(self) -> None:
        for server in self._servers:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        self.process.communicate()
        shutil.rmtree(self.folder)


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def _mounts_with(text: str) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if text in line]


HELPERS = """
import os, sys, socket, ctypes, signal, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, act):
    try:
        got = act()
    except BaseException as error:
        print(name, 'stopped:', type(error).__name__, getattr(error, 'errno', ''))
    else:
        print(name, 'GOT', got)
def call(number, *args):
    answer = libc.syscall(number, *args)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
"""


def attack(code: str, victim: Victim, **limits: int) -> Outcome:
    outcome = python(HELPERS + code, limits=limits)
    victim.well()
    return outcome


def got(outcome: Outcome) -> list[str]:
    """The attempts that went through."""
    return [line for line in outcome.stdout.decode().splitlines() if " GOT " in line]


def test_the_attacks_are_real(victim: Victim) -> None:
    """Without walls the same attempts succeed: a test that nothing can fail would prove nothing."""
    code = f"""
attempt('key', lambda: open({str(victim.key)!r}).read())
attempt('environ', lambda: [{SECRET!r} for _ in '.' if {SECRET!r} in open('/proc/{victim.process.pid}/environ').read()][0])
def connect(family, address):
    with socket.socket(family) as s: return s.connect(address) or 'in'
attempt('ipv4', lambda: connect(socket.AF_INET, ('127.0.0.1', {victim.port})))
attempt('unix', lambda: connect(socket.AF_UNIX, {victim.unix!r}))
attempt('abstract', lambda: connect(socket.AF_UNIX, {victim.abstract!r}))
attempt('signal', lambda: os.kill({victim.process.pid}, 0) or 'sent')
"""
    plain = subprocess.run(
        [sys.executable, "-I", "-S", "-c", HELPERS + code], stdout=subprocess.PIPE, check=True
    )
    assert [line.split()[0] for line in plain.stdout.decode().splitlines() if " GOT " in line] == [
        *("key", "environ", "ipv4", "unix", "abstract", "signal"),
    ]
    walled = python(HELPERS + code)
    assert got(walled) == []
    victim.caught.clear()


def test_the_host_s_files_are_not_there(victim: Victim) -> None:
    """Shadow, the node's key, other jobs' blobs and runs, other processes: none can be opened, by any way round."""
    paths = [
        "/etc/shadow",
        "/root/.ssh",
        victim.key,
        victim.blob,
        store().root,
        native().folder,
        folder(),
        "/sys",
        "/boot",
    ]
    paths += [
        f"/proc/{victim.process.pid}/environ",
        "/proc/1/root/etc/shadow",
        "/proc/self/root/etc/shadow",
        "/dev/mem",
    ]
    paths += [
        "/proc/1/cwd/etc/shadow",
        "/proc/kcore",
        "/proc/sysrq-trigger",
        "/dev/vda",
        "/dev/kmsg",
        "/oldroot",
        "/run/dbus",
    ]
    outcome = attack(
        f"""
def open_(path):
    with (os.scandir(path) if os.path.isdir(path) else open(path, 'rb')) as found:
        names = [entry.name for entry in found] if os.path.isdir(path) else found.read(64)
    if not names: raise OSError('empty')
    return names
for path in {[str(path) for path in paths]!r}:
    attempt(path, lambda: open_(path))
    attempt('up ' + path, lambda: open_('/job/in' + '/..' * 9 + path))
for fd in range(3, 64):
    attempt(f'descriptor {{fd}}', lambda: os.fstat(fd))
attempt('key in environ', lambda: [line for line in open('/proc/self/environ') if {SECRET!r} in line][0])
attempt('key in any environ', lambda: [p for p in os.listdir('/proc') if p.isdigit() and {SECRET!r} in open(f'/proc/{{p}}/environ').read()][0])
attempt('other process', lambda: [p for p in os.listdir('/proc') if p.isdigit() and int(p) > 40][0])
""",
        victim,
    )
    assert outcome.ok, outcome
    assert got(outcome) == []


def test_the_root_is_read_only(victim: Victim) -> None:
    """Nothing outside the volume can be written, and a system's setting can't be changed."""
    outcome = attack(
        """
for path in ('/x', '/usr/x', '/etc/x', '/etc/passwd', '/usr/bin/env', '/dev/x', '/run/x', '/proc/sys/kernel/hostname',
             '/proc/sys/vm/drop_caches', '/proc/sys/kernel/core_pattern', '/job/in/x', '/proc/self/oom_score_adj_x'):
    attempt(path, lambda: open(path, 'a').write('x'))
attempt('remove', lambda: os.unlink('/usr/bin/env'))
attempt('chmod', lambda: os.chmod('/usr/bin/env', 0o777))
attempt('self', lambda: open('/proc/self/exe', 'r+b').write(b'x'))
attempt('oom', lambda: os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-900'))
""",
        victim,
    )
    assert outcome.ok, outcome
    assert got(outcome) == []


def test_the_network_is_not_there(victim: Victim) -> None:
    """IPv4, IPv6, Unix and abstract sockets of the host, DNS, raw packets and virtual machine sockets lead nowhere."""
    outcome = attack(
        f"""
def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as s:
        s.settimeout(2)
        s.connect(address)
        return s.send(b'x')
attempt('ipv4', lambda: connect(socket.AF_INET, ('127.0.0.1', {victim.port})))
attempt('ipv6', lambda: connect(socket.AF_INET6, ('::1', {victim.port6 or 9})))
attempt('unix', lambda: connect(socket.AF_UNIX, {victim.unix!r}))
attempt('abstract', lambda: connect(socket.AF_UNIX, {victim.abstract!r}))
attempt('other interface', lambda: [name for _, name in socket.if_nameindex() if name != 'lo'][0])
attempt('route', lambda: open('/proc/net/route').read().splitlines()[1])
attempt('names', lambda: socket.getaddrinfo('localhost.example', 80))
for family in (17, 38, 40, 29, 31, 44):
    attempt(f'family {{family}}', lambda: socket.socket(family, socket.SOCK_RAW))
attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
""",
        victim,
    )
    assert outcome.ok, outcome
    assert got(outcome) == []


def test_the_kernel_s_doors_are_shut(victim: Victim) -> None:
    """Mounts, namespaces, ptrace, keys, BPF, io_uring, handles, modules, clocks, devices, roots and users: all refused."""
    outcome = attack(
        f"""
import platform
N = platform.machine() == 'x86_64'
numbers = dict(ptrace=101, add_key=248, keyctl=250, mount=165, umount2=166, pivot_root=155, chroot=161, unshare=272, setns=308,
    bpf=321, perf_event_open=298, userfaultfd=323, io_uring_setup=425, open_by_handle_at=304, init_module=175, kexec_load=246,
    clock_settime=227, reboot=169, swapon=167, process_vm_readv=310, pidfd_getfd=438, fsopen=430, open_tree=428, syslog=103,
    iopl=172, personality=135, kcmp=312) if N else dict(ptrace=117, add_key=217, keyctl=219, mount=40, unshare=97, bpf=280)
buffer = ctypes.create_string_buffer(64)
for name, number in numbers.items():
    attempt(name, lambda: call(number, 0, buffer, buffer, 0, 0))
for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x80):
    attempt(f'unshare {{flag:#x}}', lambda: call(272 if N else 97, flag))
    attempt(f'clone {{flag:#x}}', lambda: call(56 if N else 220, flag | 17, 0, 0, 0, 0) or os._exit(0))
attempt('setuid', lambda: os.setuid(0))
attempt('setgid', lambda: os.setgroups([0]))
attempt('setresuid', lambda: os.setresuid(0, 0, 0))
attempt('device', lambda: os.mknod('dev', 0o60666, os.makedev(254, 0)))
attempt('character', lambda: os.mknod('mem', 0o20666, os.makedev(1, 1)))
attempt('nice', lambda: os.nice(-5))
attempt('hostname', lambda: socket.sethostname('x'))
attempt('limit', lambda: __import__('resource').setrlimit(__import__('resource').RLIMIT_NOFILE, (999999, 999999)))
attempt('kill the node', lambda: os.kill({os.getpid()}, 0))
attempt('kill the victim', lambda: os.kill({victim.process.pid}, 9))
attempt('memory of init', lambda: open('/proc/1/mem', 'rb').read(1))
status = dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())
attempt('capabilities', lambda: [k for k in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb') if int(status[k], 16)][0])
attempt('new privileges', lambda: 1 // (1 - int(status['NoNewPrivs'])))
attempt('no filter', lambda: 1 // (int(status['Seccomp']) != 2))
os.system('cp /usr/bin/env suid && chmod u+s suid 2>/dev/null')
attempt('su', lambda: 1 // (os.system('/usr/bin/su -c true </dev/null >/dev/null 2>&1') == 0))
""",
        victim,
    )
    assert outcome.ok, outcome
    assert got(outcome) == []


def test_a_fork_bomb_ends_itself(victim: Victim) -> None:
    """Forking without end hits the number asked for; every child is gone."""
    outcome = attack(
        """
for n in range(400):
    try:
        if os.fork() == 0:
            time.sleep(30); os._exit(0)
    except OSError:
        pass
time.sleep(30)
""",
        victim,
        processes=20,
    )
    assert outcome.reason is Reason.TOO_MANY_PROCESSES


def test_memory_is_bounded_over_all_processes(victim: Victim) -> None:
    """Neither one process nor ten together, nor shared memory, get more than was asked for."""
    one = attack("x = [bytearray(b'x' * (1 << 20)) for _ in range(400)]", victim, memory_bytes=64 << 20)
    assert one.reason is Reason.OUT_OF_MEMORY
    together = attack(
        """
for _ in range(10):
    if os.fork() == 0:
        x = [bytearray(b'x' * (1 << 20)) for _ in range(40)]; time.sleep(20); os._exit(0)
time.sleep(20)
""",
        victim,
        memory_bytes=128 << 20,
    )
    assert together.reason is Reason.OUT_OF_MEMORY
    shared = attack(
        "f = open('/dev/shm/x', 'wb')\nfor _ in range(400): f.write(bytes(1 << 20))",
        victim,
        memory_bytes=64 << 20,
    )
    assert shared.reason in (Reason.FAILED, Reason.OUT_OF_MEMORY)
    assert b"No space left" in shared.stderr or shared.reason is Reason.OUT_OF_MEMORY


@pytest.mark.parametrize("counted", [True, False])
def test_memory_outside_of_processes_is_bounded_as_well(counted: bool, victim: Victim) -> None:
    """Nameless files and shared mappings: counted by a control group, or refused and counted where there is none."""
    code = """
files = [os.memfd_create(str(n)) for n in range(30)]
for f in files: os.write(f, bytes(20 << 20))
"""
    mapping = """
import mmap
maps = [mmap.mmap(-1, 20 << 20) for _ in range(30)]
for m in maps: m.write(b'x' * (20 << 20))
time.sleep(20)
"""
    limits = {"memory_bytes": 64 << 20, "disk_bytes": 1 << 20}
    nameless = python(HELPERS + code, runner=native() if counted else uncounted(), limits=limits)
    assert nameless.reason is (
        Reason.OUT_OF_MEMORY if native().groups is not None and counted else Reason.FAILED
    )
    mapped = python(HELPERS + mapping, runner=native() if counted else uncounted(), limits=limits)
    assert mapped.reason is Reason.OUT_OF_MEMORY
    victim.well()


def test_a_crash_starts_nothing_on_the_host(victim: Victim) -> None:
    """The limit that keeps a crash handler away can't be changed, in either direction."""
    outcome = attack(
        """
import resource
for limit in ((0, 0), (0, 1), (-1, -1)):
    attempt(f'core {limit}', lambda: resource.setrlimit(resource.RLIMIT_CORE, limit))
assert resource.getrlimit(resource.RLIMIT_CORE) == (1, 1)
os.abort()
""",
        victim,
    )
    assert (outcome.reason, outcome.exit_code) == (Reason.FAILED, 134)
    assert got(outcome) == []


@pytest.mark.parametrize("place", ["/job/x", "/job/out/x", "/tmp/x"])
def test_the_disk_is_bounded(place: str, victim: Victim) -> None:
    """A file grows to the volume's size and no further, and the host's disk is not what fills."""
    free = os.statvfs("/").f_bavail
    outcome = attack(
        f"f = open({place!r}, 'wb')\nfor _ in range(200): f.write(bytes(1 << 20))", victim, disk_bytes=8 << 20
    )
    assert outcome.reason is Reason.OUT_OF_DISK
    assert outcome.usage.disk_bytes <= 8 << 20
    assert abs(free - os.statvfs("/").f_bavail) * 4096 < 100 << 20


def test_a_million_small_files_are_too_many(victim: Victim) -> None:
    """Empty files take no blocks, and are counted all the same."""
    outcome = attack("for n in range(300_000): open(f'/job/tmp/{n}', 'w').close()", victim, files=2000)
    assert outcome.reason is Reason.OUT_OF_DISK
    assert outcome.outputs == ()


def test_holes_are_not_read(victim: Victim) -> None:
    """A sparse terabyte left in out is refused by its size, not hashed for an hour."""
    outcome = attack("os.truncate(os.open('/job/out/hole', os.O_CREAT | os.O_RDWR), 1 << 40)", victim)
    assert outcome.reason is Reason.OUT_OF_DISK
    assert "holes" in outcome.why
    assert outcome.outputs == ()


def test_a_flood_of_output_is_cut(victim: Victim) -> None:
    """Endless printing ends the task; what was kept is bounded and flagged."""
    outcome = attack("for _ in range(3000): os.write(1, b'y' * 65536)", victim, output_bytes=1 << 20)
    assert outcome.reason is Reason.TOO_MUCH_OUTPUT
    assert outcome.truncated
    assert len(outcome.stdout) <= 65536


def test_only_plain_files_come_out(victim: Victim) -> None:
    """Links to the host, pipes, sockets, hidden and bent names are named as skipped, and nothing behind them is read."""
    outcome = attack(
        f"""
os.chdir('/job/out')
os.symlink('/etc/shadow', 'shadow'); os.symlink({str(victim.key)!r}, 'key'); os.symlink('../../../..', 'up')
os.symlink('/proc/self/root', 'root'); os.mkfifo('pipe'); socket.socket(socket.AF_UNIX).bind('sock')
open('.hidden', 'w').write('x'); open('a b', 'w').write('x'); open('n\\nl', 'w').write('x'); open('-rf', 'w').write('x')
open(b'\\xff\\xfe', 'w').write('x'); open('good', 'w').write('x'); os.link('good', 'hard')
attempt('hard link to the host', lambda: os.link('/etc/passwd', 'passwd'))
deep = '/'.join('d' * 12); os.makedirs(deep); open(deep + '/x', 'w').write('x')
os.mkdir('shut'); open('shut/x', 'w').write('x'); os.chmod('shut', 0)
""",
        victim,
    )
    assert outcome.ok, outcome
    assert got(outcome) == []
    assert {output.name for output in outcome.outputs} - {"shut/x"} == {"good", "hard"}
    assert all(store().read(output.digest) == b"x" for output in outcome.outputs)
    assert {"shadow", "key", "up", "root", "pipe", "sock", ".hidden", "a b", "-rf"} <= set(outcome.skipped)


def test_out_itself_may_not_be_a_link(victim: Victim) -> None:
    """Putting a link in the place of out gives away nothing."""
    outcome = attack("os.rmdir('/job/out'); os.symlink('/', '/job/out')", victim)
    assert outcome.ok
    assert (outcome.outputs, outcome.skipped) == ((), ("out",))


DAEMON = """
signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGHUP, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 3)
        for _ in range(100): time.sleep(0.5)
        os._exit(0)
    os._exit(0)
"""


def test_nothing_outlives_its_program(victim: Victim) -> None:
    """A daemon that was forked twice, left its session and ignores signals is dead when its program has ended."""
    outcome = attack(DAEMON, victim)
    assert outcome.ok, outcome


def test_nothing_outlives_its_lease(victim: Victim) -> None:
    """When the lease ends, so does everything, whatever it ignores; the reason is the lease's end."""
    leash = Leash()
    task = Task(
        image=RootFs("python"),
        argv=(
            "python3",
            "-I",
            "-S",
            "-c",
            HELPERS + DAEMON + "os.write(1, b'up')\nfor _ in range(100): time.sleep(0.5)",
        ),
        limits=Limits(wall_s=20),
    )
    outcome = asyncio.run(native().run(task, leash=leash, on_log=lambda _, __: leash.end()))
    assert outcome.reason is Reason.LEASE_ENDED
    victim.well()


NODE = """
import asyncio, sys
from pathlib import Path
from clusterai.sandbox import BlobStore, NativeRunner, RootFs, Task
async def main(folder):
    runner = NativeRunner(BlobStore(folder / 'store'), folder)
    code = "import os, time; os.write(1, b'up'); [time.sleep(0.5) for _ in range(100)]"
    task = Task(image=RootFs('python'), argv=('python3', '-I', '-S', '-c', code))
    def log(stream, data):
        print(*runner.living() or [0], flush=True)
    await runner.run(task, on_log=log)
asyncio.run(main(Path(sys.argv[1])))
"""


def test_nothing_outlives_its_node(tmp_path: Path, victim: Victim) -> None:
    """A node that is killed takes its tenants' processes along."""
    source = str(Path(__file__).parents[3] / "src")
    node = subprocess.Popen(
        [sys.executable, "-c", NODE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": source},
        stdout=subprocess.PIPE,
    )
    assert node.stdout is not None
    tenants = [int(process) for process in node.stdout.readline().split() if process != b"0"]
    watched = [os.pidfd_open(process) for process in tenants]
    node.kill()
    node.communicate()
    for pidfd in watched:
        assert select.select([pidfd], [], [], 120)[0], "a tenant's process outlived its node"
        os.close(pidfd)
    with contextlib.suppress(NoControlGroups):
        ControlGroups()  # It sweeps what the dead node left.
    assert list(Path("/sys/fs/cgroup").rglob(f"clusterai-{node.pid}-*")) == []
    victim.well()


def test_a_tenant_does_not_see_another(victim: Victim) -> None:
    """Two tasks at once share no file, no process, no socket and no shared memory."""
    hide = f"""
open('/dev/shm/{SECRET}', 'w').write('x'); open('/job/out/{SECRET}', 'w').write('x'); open('/tmp/{SECRET}', 'w').write('x')
s = socket.socket(socket.AF_UNIX); s.bind('\\0{SECRET}'); s.listen()
t = socket.socket(); t.bind(('127.0.0.1', 21599)); t.listen()
os.write(1, b'hidden'); time.sleep(30)
"""
    seek = f"""
attempt('shm', lambda: open('/dev/shm/{SECRET}'))
attempt('tmp', lambda: open('/tmp/{SECRET}'))
attempt('out', lambda: open('/job/out/{SECRET}'))
def connect(family, address):
    with socket.socket(family) as s: return s.connect(address)
attempt('abstract', lambda: connect(socket.AF_UNIX, '\\0{SECRET}'))
attempt('tcp', lambda: connect(socket.AF_INET, ('127.0.0.1', 21599)))
attempt('process', lambda: [p for p in os.listdir('/proc') if p.isdigit() and b'{SECRET}' in open(f'/proc/{{p}}/cmdline', 'rb').read() and int(p) not in (os.getpid(), 1)][0])
"""

    def task(code: str) -> Task:
        return Task(
            image=RootFs("python"),
            argv=("python3", "-I", "-S", "-c", HELPERS + code),
            limits=Limits(wall_s=20),
        )

    async def test() -> Outcome:
        ready, leash = asyncio.Event(), Leash()
        hider = asyncio.ensure_future(native().run(task(hide), leash=leash, on_log=lambda _, __: ready.set()))
        await ready.wait()
        outcome = await native().run(task(seek))
        leash.cancel()
        await hider
        return outcome

    outcome = asyncio.run(test())
    victim.well()
    assert outcome.ok, outcome
    assert got(outcome) == []
