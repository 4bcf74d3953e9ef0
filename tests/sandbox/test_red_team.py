# SPDX-License-Identifier: Apache-2.0
"""Programs that attack whoever runs them. Each, had it succeeded, would leave the evidence that its test looks for.

``control``: the same attack also runs once without a sandbox, and there the evidence has to be found. Those that would do harm
have none. On a kernel that lacks a layer its attacks are skipped.
"""

from __future__ import annotations

import os
import platform
import signal
import stat
from collections.abc import Callable
from typing import Any, NamedTuple

import psutil
import pytest

from guerdon.sandbox import LAYERS, Call, Calls, Fate, Sandbox, report
from tests.sandbox import attacks, red_team
from tests.sandbox.red_team import TOKEN, Targets, accepted


class Seen(NamedTuple):
    """What an attack returned (None if nothing), what it was told, and where else to look."""

    value: Any
    world: dict[str, Any]
    targets: Targets


Evidence = Callable[[Seen], bool]


class Attack(NamedTuple):
    """``layer``: the one that has to be there. ``told``: more for the program, or what is different in the control."""

    program: Callable[..., Any]
    layer: str
    evidence: Evidence
    control: bool
    told: dict[str, Any] = {}  # noqa: RUF012


def text(wanted: str) -> Evidence:
    return lambda seen: wanted in str(seen.value)


def dropped(name: str) -> Evidence:
    return lambda seen: os.path.exists(os.path.join(seen.world["drop"], name))


def above(least: int) -> Evidence:
    return lambda seen: isinstance(seen.value, int) and seen.value >= least


def came(server: str) -> Evidence:
    return lambda seen: accepted(getattr(seen.targets, server))


def anything(seen: Seen) -> bool:
    return bool(seen.value)


def heard(seen: Seen) -> bool:
    return str(int(signal.SIGUSR1)) in seen.targets.signals().split()


def heard_twice(seen: Seen) -> bool:
    return seen.targets.signals().split().count(str(int(signal.SIGURG))) > 1


def of_file(changed: Callable[[os.stat_result], bool]) -> Evidence:
    return lambda seen: changed(os.stat(seen.world["file"]))


ATTACKS = [
    Attack(attacks.read_etc_passwd, "files", text("root:"), True),
    Attack(attacks.read_home, "files", text(TOKEN), True),
    Attack(attacks.list_home, "files", text("secret"), True),
    Attack(attacks.read_environment, "files", text(TOKEN), True),
    Attack(attacks.read_environment_of_another, "files", text(TOKEN), True),
    Attack(attacks.climb_out, "files", text("root:"), True),
    Attack(attacks.climb_by_descriptors, "files", text("root:"), True),
    Attack(attacks.follow_a_symlink, "files", text(TOKEN), True),
    Attack(attacks.write_outside, "files", dropped("written"), True),
    Attack(attacks.write_anywhere, "files", anything, True),
    Attack(attacks.write_to_the_libraries, "files", anything, False),
    Attack(attacks.fill_the_disk, "files", dropped("full"), True, {"amount": 1}),
    Attack(attacks.set_the_suid_bit, "syscalls", of_file(lambda s: bool(s.st_mode & stat.S_ISUID)), True),
    Attack(attacks.take_ownership, "syscalls", of_file(lambda s: s.st_uid == 23456), True),
    Attack(attacks.remove_a_file, "files", lambda seen: not os.path.exists(seen.world["file"]), True),
    Attack(attacks.truncate_a_file, "files", of_file(lambda s: s.st_size == 0), True),
    Attack(attacks.open_by_handle, "syscalls", above(0), False),
    Attack(attacks.connect_tcp, "network", came("tcp"), True),
    Attack(attacks.send_udp, "network", came("udp"), True),
    Attack(attacks.connect_unix, "network", came("unix"), True),
    Attack(attacks.connect_abstract, "network", came("abstract"), True),
    Attack(attacks.send_from_a_pair, "network", came("datagrams"), True),
    Attack(attacks.listen, "network", anything, True),
    Attack(attacks.ask_the_kernel_by_netlink, "network", above(0), True),
    Attack(attacks.fork_bomb, "processes", above(1), True, {"forks": 3}),
    Attack(attacks.fork_by_number, "processes", above(1), True),
    Attack(attacks.start_a_program, "processes", lambda seen: seen.value == 0, True),
    Attack(attacks.spawn_a_program, "processes", above(1), True),
    Attack(attacks.become_a_program, "processes", dropped("executed"), True),
    Attack(attacks.thread_bomb, "processes", above(100), True),
    Attack(attacks.leave_a_daemon, "processes", dropped("daemon"), True),
    Attack(attacks.signal_a_process, "processes", heard, True),
    Attack(attacks.signal_every_process, "processes", heard_twice, False),
    Attack(attacks.signal_the_parent, "processes", anything, True),
    Attack(attacks.signal_by_owning_a_descriptor, "processes", heard, True),
    Attack(attacks.read_memory_of_another, "processes", text(TOKEN), True),
    Attack(attacks.read_memory_by_call, "syscalls", text(TOKEN), True),
    Attack(attacks.trace_another, "syscalls", lambda seen: seen.value == 0, True),
    Attack(attacks.steal_a_descriptor, "syscalls", above(0), True),
    Attack(attacks.limit_another, "syscalls", text("done"), True),
    Attack(attacks.slow_another_down, "syscalls", text("done"), True),
    Attack(attacks.mount_something, "syscalls", lambda seen: seen.value == 0, False),
    Attack(attacks.unmount_the_root, "syscalls", lambda seen: seen.value == 0, False),
    Attack(attacks.unshare_everything, "syscalls", lambda seen: seen.value == 0, True),
    Attack(attacks.change_the_root, "privileges", text("secret"), True),
    Attack(attacks.reboot, "syscalls", lambda seen: seen.value == 0, False),
    Attack(attacks.become_root, "files", text(TOKEN), True),
    Attack(attacks.have_much_memory, "memory", above(1), True, {"gib": 1}),
    Attack(attacks.have_memory_bit_by_bit, "memory", above(1), True, {"gib": 1}),
    Attack(attacks.raise_the_limits, "memory", anything, True),
    Attack(attacks.exhaust_descriptors, "memory", above(100), True),
    *(
        Attack(attacks.call_by_number, "syscalls", above(0), True, {"call": name})
        for name in sorted(red_team.NUMBERS)
        if name != "clone"
    ),
]
if platform.machine() == "x86_64":
    ATTACKS.append(Attack(attacks.call_as_another_machine, "syscalls", above(1), True))
    ATTACKS.append(Attack(attacks.call_with_the_other_numbering, "network", above(0), True))

NOT_EVERYWHERE = {
    *("bpf", "io_uring_setup", "perf_event_open", "userfaultfd", "fanotify_init", "keyctl", "add_key", "mq_open", "capset"),
    *("call_as_another_machine", "call_with_the_other_numbering", "change_the_root", "take_ownership", "unshare_everything"),
    *("setgroups", "pidfd_open", "steal_a_descriptor", "read_memory_of_another", "read_memory_by_call", "trace_another"),
    *("raise_the_limits", "become_root", "read_environment_of_another", "exhaust_descriptors", "chroot", "unshare"),
}
"""Attacks that some kernels and users are refused without a sandbox too; there the control has nothing to show and is skipped."""


def name_of(attack: Attack) -> str:
    return attack.told.get("call", attack.program.__name__)


@pytest.fixture(scope="module")
def missing() -> tuple[str, ...]:
    return report().missing


@pytest.fixture(scope="module")
def box(missing):
    if len(missing) == len(LAYERS):
        pytest.skip("not run: there is no sandbox on this system")
    with Sandbox(1, without=missing) as box:
        yield box


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    made = Targets(tmp_path_factory.mktemp("targets"))
    os.environ["GUERDON_SECRET"] = TOKEN
    yield made
    del os.environ["GUERDON_SECRET"]
    made.close()


def still_there(box: Sandbox) -> None:
    """The sandbox works on, and nothing is left in it: a launcher, a server, and no cell."""
    assert box.evaluate([Calls("def f(): return 7", [Call("f")])])[0][0].value == 7
    for launcher in box.pids():
        assert len(psutil.Process(launcher).children(recursive=True)) == 1


@pytest.mark.parametrize("attack", ATTACKS, ids=name_of)
def test_an_attack_leaves_no_evidence(attack, box, missing, targets):
    if attack.layer in missing:
        pytest.skip(f"not run: this system lacks the layer {attack.layer}")
    world = targets.fresh(**{k: v for k, v in attack.told.items() if k == "call"})
    world["launcher"] = next(iter(box.pids()), os.getpid())
    (outcome,) = box.evaluate([Calls(red_team.source(attack.program), [Call("f", (world,))])], seconds=10.0)[0]
    assert outcome.fate is not Fate.BROKEN
    assert not attack.evidence(Seen(outcome.value, world, targets)), outcome
    still_there(box)


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a.control], ids=name_of)
def test_without_a_sandbox_the_evidence_is_there(attack, targets):
    world = targets.fresh(**attack.told)
    value = red_team.unguarded(attack.program, world)
    found = attack.evidence(Seen(value, world, targets))
    if not found and name_of(attack) in NOT_EVERYWHERE:
        pytest.skip("refused here without a sandbox too")
    assert found, value
