# SPDX-License-Identifier: Apache-2.0
"""Programs that attack. Each function is sent as source; ``w`` says where its targets are; what it returns may be evidence.

They are written so that success leaves evidence and does little harm: signals that are ignored by default, bounded bombs.
"""

from __future__ import annotations

# ruff: noqa: SIM105, SIM115, PERF401


# ---- files


def read_etc_passwd(w):
    return open("/etc/passwd").read()


def read_home(w):
    return open(w["secret"]).read()


def list_home(w):
    import os

    return os.listdir(w["home"])


def read_environment(w):
    import os

    found = repr(dict(os.environ))
    for path in ("/proc/self/environ", "/proc/1/environ"):
        try:
            found += open(path).read()
        except OSError:
            pass
    return found


def read_environment_of_another(w):
    return open(f"/proc/{w['decoy']}/environ").read()


def climb_out(w):
    import os

    here = os.path.dirname(os.__file__)
    for path in ("/.." * 20 + "/etc/passwd", here + "/.." * 20 + "/etc/passwd", "../" * 20 + "etc/passwd"):
        try:
            return open(path).read()
        except OSError:
            pass
    raise OSError("no way up")


def climb_by_descriptors(w):
    import os

    for fd in (*range(200), os.open("/", os.O_PATH), os.open(os.path.dirname(os.__file__), os.O_PATH)):
        for path in ("etc/passwd", "../" * 20 + "etc/passwd", "../old/etc/passwd"):
            try:
                return os.read(os.open(path, os.O_RDONLY, dir_fd=fd), 100).decode()
            except OSError:
                pass
    raise OSError("no descriptor leads out")


def follow_a_symlink(w):
    import os

    os.symlink(w["secret"], w["drop"] + "/link")
    return open(w["drop"] + "/link").read()


def write_outside(w):
    open(w["drop"] + "/written", "w").write("here")


def write_anywhere(w):
    import os

    found = []
    for folder in ("/tmp", "/dev/shm", "/var/tmp", ".", "/", os.path.expanduser("~")):
        path = os.path.join(folder, f"guerdon-attack-{os.getpid()}")
        try:
            open(path, "w").close()
            os.unlink(path)
            found.append(folder)
        except OSError:
            pass
    return found


def write_to_the_libraries(w):
    import os

    found = []
    for path, mode in ((os.__file__, "r+"), (os.path.dirname(os.__file__) + "/guerdon_attack.py", "x")):
        try:
            open(path, mode).close()
            found.append(path)
        except OSError:
            pass
    return found


def fill_the_disk(w):
    with open(w["drop"] + "/full", "wb") as file:
        for _ in range(w["amount"]):
            file.write(bytes(1 << 20))


def set_the_suid_bit(w):
    import os

    os.chmod(w["file"], 0o4755)


def take_ownership(w):
    import os

    os.chown(w["file"], 23456, 23456)


def remove_a_file(w):
    import os

    os.unlink(w["file"])


def truncate_a_file(w):
    import os

    os.truncate(w["file"], 0)


def open_by_handle(w):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    handle, mount_id = ctypes.create_string_buffer(b"\x80\0\0\0" + bytes(140)), ctypes.c_int()
    return libc.name_to_handle_at(-100, w["secret"].encode(), handle, ctypes.byref(mount_id), 0)


# ---- network


def connect_tcp(w):
    import socket

    socket.create_connection(("127.0.0.1", w["tcp"]), timeout=2).close()


def send_udp(w):
    import socket

    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"out", ("127.0.0.1", w["udp"]))


def connect_unix(w):
    import socket

    socket.socket(socket.AF_UNIX).connect(w["unix"])


def connect_abstract(w):
    import socket

    socket.socket(socket.AF_UNIX).connect("\0" + w["abstract"])


def send_from_a_pair(w):
    import socket

    one, _other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendto(b"out", "\0" + w["datagrams"])


def listen(w):
    import socket

    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    return server.getsockname()[1]


def ask_the_kernel_by_netlink(w):
    import socket

    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).fileno()


# ---- processes


def fork_bomb(w):
    import os

    count = 0
    for _ in range(w["forks"]):
        try:
            if os.fork() == 0:
                os._exit(0)
            count += 1
        except OSError:
            pass
    return count


def fork_by_number(w):
    import ctypes
    import os
    import signal

    libc = ctypes.CDLL(None, use_errno=True)
    child = libc.syscall(ctypes.c_long(w["nr"]["clone"]), ctypes.c_long(signal.SIGCHLD), *[ctypes.c_long(0)] * 4)
    if child == 0:
        os._exit(0)
    return child


def start_a_program(w):
    import subprocess

    return subprocess.run(["/bin/true"], check=True).returncode


def spawn_a_program(w):
    import os

    return os.posix_spawn("/bin/true", ["true"], {})


def become_a_program(w):
    import os

    os.execv("/bin/sh", ["sh", "-c", f"echo here > {w['drop']}/executed"])


def thread_bomb(w):
    import threading

    stop, count = threading.Event(), 0
    threading.stack_size(65536)
    try:
        for _ in range(300):
            threading.Thread(target=stop.wait, daemon=True).start()
            count += 1
    except RuntimeError:
        pass
    stop.set()
    return count


def leave_a_daemon(w):
    import os
    import time

    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.3)
            open(w["drop"] + "/daemon", "w").close()
        os._exit(0)
    time.sleep(1)


def signal_a_process(w):
    import os
    import signal

    os.kill(w["decoy"], signal.SIGUSR1)


def signal_every_process(w):
    import os
    import signal

    os.kill(-1, signal.SIGURG)


def signal_the_parent(w):
    import os

    found = []
    for process in (os.getppid(), w["caller"], w["launcher"], 0, 2, 3):
        try:
            os.kill(process, 0)
            found.append(process)
        except OSError:
            pass
    return found


def signal_by_owning_a_descriptor(w):
    import fcntl
    import os
    import signal

    near, far = os.pipe()
    fcntl.fcntl(near, fcntl.F_SETOWN, w["decoy"])
    fcntl.fcntl(near, 10, int(signal.SIGUSR1))  # F_SETSIG
    fcntl.fcntl(near, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(far, b".")


def read_memory_of_another(w):
    with open(f"/proc/{w['decoy']}/mem", "rb") as file:
        file.seek(w["address"])
        return file.read(32).decode()


def read_memory_by_call(w):
    import ctypes

    class Vector(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    libc = ctypes.CDLL(None, use_errno=True)
    here = ctypes.create_string_buffer(32)
    mine, its = Vector(ctypes.addressof(here), 32), Vector(w["address"], 32)
    libc.process_vm_readv(
        w["decoy"], ctypes.byref(mine), ctypes.c_ulong(1), ctypes.byref(its), ctypes.c_ulong(1), ctypes.c_ulong(0)
    )
    return here.value.decode()


def trace_another(w):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return libc.ptrace(ctypes.c_long(0x4206), ctypes.c_long(w["decoy"]), None, None)  # PTRACE_SEIZE, which stops nothing


def steal_a_descriptor(w):
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    process = libc.syscall(ctypes.c_long(434), ctypes.c_long(w["decoy"]), ctypes.c_long(0))
    return libc.syscall(ctypes.c_long(438), ctypes.c_long(process), ctypes.c_long(1), ctypes.c_long(0))


def limit_another(w):
    import resource

    resource.prlimit(w["decoy"], resource.RLIMIT_CORE, (0, 0))
    return "done"


def slow_another_down(w):
    import os

    os.setpriority(os.PRIO_PROCESS, w["decoy"], 5)
    return "done"


# ---- the kernel


def call_by_number(w):
    """A call that programs have no use for, by its number."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    attributes = ctypes.create_string_buffer(128)
    ctypes.memmove(attributes, b"\x01\0\0\0\x80\0\0\0", 8)  # a software counter
    array = (2).to_bytes(4, "little") + (4).to_bytes(4, "little") * 2 + (1).to_bytes(4, "little") + bytes(100)
    arguments = {
        "keyctl": (0, -3, 1),
        "add_key": (b"user", b"guerdon", b"x", 1, -2),
        "bpf": (0, array, 72),
        "io_uring_setup": (4, ctypes.create_string_buffer(120)),
        "perf_event_open": (attributes, 0, -1, -1, 0),
        "userfaultfd": (1,),
        "memfd_create": (b"guerdon", 0),
        "inotify_init1": (0,),
        "fanotify_init": (0, 0),
        "personality": (0xFFFFFFFF,),
        "unshare": (0,),
        "chroot": (b"/",),
        "setgroups": (0, 0),
        "pidfd_open": (1, 0),
        "shmget": (0, 4096, 0o1600),
        "mq_open": (b"guerdon", 0o102, 0o600, 0),
        "timer_create": (0, 0, ctypes.create_string_buffer(8)),
        "capset": (b"\x22\x05\x08\x20\0\0\0\0", b"\xff" * 24),
    }
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments[w["call"]]]
    return libc.syscall(ctypes.c_long(w["nr"][w["call"]]), *given)


def mount_something(w):
    import ctypes

    return ctypes.CDLL(None).mount(b"none", w["drop"].encode(), b"tmpfs", ctypes.c_ulong(0), None)


def unmount_the_root(w):
    import ctypes

    return ctypes.CDLL(None).umount2(b"/", 2)


def unshare_everything(w):
    import ctypes

    return ctypes.CDLL(None).unshare(0x10000000 | 0x20000)


def change_the_root(w):
    import os

    os.chroot(w["home"])
    return os.listdir("/")


def reboot(w):
    import ctypes

    return ctypes.CDLL(None).reboot(0)  # what the keys Control, Alt and Delete do: no more than that


def become_root(w):
    import os

    for become in (os.setuid, os.seteuid, os.setgid):
        try:
            become(0)
        except OSError:
            pass
    return open(w["of_root"]).read()


def call_as_another_machine(w):
    """The 32-bit entry to the kernel, where system calls have other numbers: socketcall(socket, (AF_INET, SOCK_STREAM, 0))."""
    import ctypes
    import mmap

    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("53 b8 14 00 00 00 cd 80 5b c3"))  # push rbx; mov eax, 20; int 0x80; pop rbx; ret
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    return function()


def call_with_the_other_numbering(w):
    import ctypes

    return ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 | 41), *map(ctypes.c_long, (2, 1, 0)))  # x32's socket


# ---- memory and other things that run out


def have_much_memory(w):
    import mmap

    return len(mmap.mmap(-1, w["gib"] << 30)) >> 30


def have_memory_bit_by_bit(w):
    import mmap

    held = []
    try:
        for _ in range(w["gib"] * 16):
            held.append(mmap.mmap(-1, 64 << 20))
    except (OSError, MemoryError):
        pass
    return len(held) >> 4


def raise_the_limits(w):
    import resource

    found = []
    for which in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC):
        try:
            resource.setrlimit(which, (1 << 40, 1 << 40) if which != resource.RLIMIT_NOFILE else (4096, 4096))
            found.append(which)
        except (OSError, ValueError):
            pass
    return found


def exhaust_descriptors(w):
    import os

    count = 0
    try:
        for _ in range(500):
            os.dup(1)
            count += 1
    except OSError:
        pass
    return count
