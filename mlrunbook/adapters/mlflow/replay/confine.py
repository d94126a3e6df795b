"""Run as a program: gives up all that a model's own code must not have, then becomes the interpreter that runs it.

    python -I confine.py '{"argv": [...], "read": [...], "write": [...], "memory_bytes": N, "file_bytes": N, "cpu_s": N}'

A pickle may run anything, so nothing rests on what the model does. Landlock (Linux 5.13) opens the named paths alone and keeps it from
other processes, /proc among them. Seccomp leaves no socket, no other process, no signal to others, and no change of who may read a file.
Every capability goes, so root is no more than another user. Neither needs a privilege; where one is missing it ends with NOT_CONFINED
and runs nothing. It needs the standard library alone.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import stat
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

NOT_CONFINED, NO_INTERPRETER = 78, 79
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _IS, _AT_LEAST, _HAS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF: ld abs, jeq, jge, jset, ret
_THREAD = 0x10000  # CLONE_THREAD
_ONLY_X32 = 0x40000000
_NNP, _SECCOMP, _CAPBSET_DROP, _SECUREBITS, _AMBIENT = 38, 22, 24, 28, 47  # prctl
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many rights of files Landlock knows, by its version; later ones 16
_FILE_RIGHTS = 0b111 | 1 << 14 | 1 << 15

# What is refused, by its number on x86_64 and on aarch64 (0: it has none there).
_REFUSED = {
    # the network, and what would open a way around it
    "socket": (41, 198), "socketpair": (53, 199), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # other processes
    "fork": (57, 0), "vfork": (58, 0), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "kcmp": (312, 272),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "setpriority": (141, 140), "sched_setaffinity": (203, 122), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "ioprio_set": (251, 30), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    # files that it may not open, and that belong to the same user
    "chmod": (90, 0), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, 0), "lchown": (94, 0),
    "fchown": (93, 55), "fchownat": (260, 54), "utime": (132, 0), "utimes": (235, 0), "futimesat": (261, 0), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "truncate": (76, 45), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    # the machine
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "chroot": (161, 51), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "quotactl": (179, 60), "acct": (163, 89), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "sethostname": (170, 161), "syslog": (103, 116),
}  # fmt: skip
_CLONE, _CLONE3, _TGKILL, _PRLIMIT = (56, 220), (435, 435), (234, 131), (302, 261)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


def why_not() -> str | None:
    """Why nothing can be confined on this machine; None: it can. Nothing is changed by asking."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return f"{platform.system()} on {platform.machine()} is not supported: Linux on x86_64 or aarch64 is needed"
    if _landlock_version() < 1:
        return "this kernel has no Landlock (Linux 5.13 or newer, with `landlock` in its list of security modules)"
    if not os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        return "this kernel has no seccomp filters"
    return None


def main(given: str) -> None:
    wanted = json.loads(given)
    try:
        if (why := why_not()) is not None:
            raise OSError(errno.ENOSYS, why)
        _limit(wanted["memory_bytes"], wanted["file_bytes"], wanted["cpu_s"])
        _drop_capabilities()
        _prctl(_NNP, 1)
        _open_only(wanted["read"], wanted["write"])
        _refuse_calls()
    except (OSError, ValueError) as error:
        print(error.strerror if isinstance(error, OSError) and error.strerror else error, flush=True)
        os._exit(NOT_CONFINED)
    argv = wanted["argv"]
    try:
        os.execv(argv[0], argv)  # noqa: S606 - what it becomes is the interpreter that policy names
    except OSError as error:
        print(f"{argv[0]} cannot be run: {error.strerror}", flush=True)
        os._exit(NO_INTERPRETER)


def _limit(memory_bytes: int, file_bytes: int, cpu_s: int) -> None:
    os.nice(10)
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 1024),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def _drop_capabilities() -> None:
    """All of them, and none comes back when root runs a program."""
    if os.geteuid() != 0:
        return
    libc = _libc()
    for number in range(64):
        libc.prctl(_CAPBSET_DROP, number, 0, 0, 0)  # refused for numbers that are none
    libc.prctl(_SECUREBITS, 0b101111, 0, 0, 0)  # root is nobody special: NOROOT and NO_SETUID_FIXUP, both locked; no KEEP_CAPS
    libc.prctl(_AMBIENT, 4, 0, 0, 0)  # clear all
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    if libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(none)) != 0:
        raise _failed("the capabilities of root cannot be given up")


def _open_only(read: Sequence[str], write: Sequence[str]) -> None:
    """What is not there is left out."""
    version = _landlock_version()
    rights = (1 << _RIGHTS.get(version, 16)) - 1
    attributes = struct.pack("=QQQ", rights, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    libc = _libc()
    rules = libc.syscall(_CREATE_RULESET, ctypes.c_char_p(attributes), ctypes.c_size_t(size), 0)
    if rules < 0:
        raise _failed("Landlock takes no rules")
    for paths, allowed in ((read, 0b1101), (write, 0b1100 | 0b10 | 0b110110000 | 1 << 14)):
        for path in paths:
            _allow(libc, rules, path, allowed & rights)
    if libc.syscall(_RESTRICT_SELF, rules, 0) != 0:
        raise _failed("Landlock does not hold")
    os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: str, allowed: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not stat.S_ISDIR(os.fstat(handle).st_mode):
        allowed &= _FILE_RIGHTS
    rule = struct.pack("=Qi", allowed, handle)
    result = libc.syscall(_ADD_RULE, rules, 1, ctypes.c_char_p(rule), 0)
    os.close(handle)
    if result != 0:
        raise _failed(f"Landlock does not open {path}")


def _refuse_calls() -> None:
    which, arch = _MACHINES[platform.machine()]
    program = [(_LOAD, 0, 0, 4), (_IS, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    program += [(_AT_LEAST, 0, 1, _ONLY_X32), _refused(errno.EPERM)]
    for numbers in _REFUSED.values():
        if numbers[which]:
            program += [(_IS, 0, 1, numbers[which]), _refused(errno.EPERM)]
    program += [(_IS, 0, 1, _CLONE3[which]), _refused(errno.ENOSYS)]  # its flags cannot be seen: libc falls back to clone
    for numbers, test in ((_CLONE, (_HAS, 0, 1, _THREAD)), (_TGKILL, (_IS, 0, 1, os.getpid())), (_PRLIMIT, (_IS, 0, 1, 0))):
        program += [(_IS, 0, 4, numbers[which]), (_LOAD, 0, 0, 16), test, (_RETURN, 0, 0, _ALLOW), _refused(errno.EPERM)]
    program.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    pointer = struct.pack("@HP", len(program), ctypes.addressof(code))
    _prctl(_SECCOMP, 2, ctypes.c_char_p(pointer))


def _refused(number: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ERRNO | number)


def _landlock_version() -> int:
    return int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1))


def _prctl(what: int, *values: object) -> None:
    given = [ctypes.c_ulong(one) if isinstance(one, int) else one for one in (*values, 0, 0, 0, 0)][:4]
    if _libc().prctl(what, *given) != 0:
        raise _failed("the kernel keeps no filter of system calls")


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what} ({os.strerror(number)})")


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


# What an interpreter and its libraries read besides the model.
SYSTEM = (
    "/usr/lib", "/usr/lib64", "/usr/lib32", "/usr/libexec", "/usr/share", "/usr/bin", "/usr/local/lib", "/lib", "/lib64", "/bin",
    "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/etc/ssl/openssl.cnf",
    "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random",
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm/overcommit_memory", "/sys/devices/system/cpu",
)  # fmt: skip


def read_by(python: str) -> list[str]:
    """What this interpreter reads: its own folders and those of the one that it is a virtual environment of."""
    found: list[str] = [*SYSTEM]
    path = Path(python)
    for prefix in dict.fromkeys((path.parent.parent, path.resolve().parent.parent, *_homes(path))):
        if not any(prefix.glob("lib*/python3*")):
            continue  # no prefix of a Python: nothing of it is needed
        found += [str(prefix / name) for name in ("bin", "lib", "lib64", "share", "ssl", "pyvenv.cfg")]
    return found


def _homes(python: Path) -> list[Path]:
    try:
        lines = (python.parent.parent / "pyvenv.cfg").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [Path(value.strip()).parent for key, _, value in (line.partition("=") for line in lines) if key.strip() == "home"]


if __name__ == "__main__":
    main(sys.argv[1])
