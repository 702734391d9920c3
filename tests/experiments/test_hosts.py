"""Several processes that train together, on the loopback interface: the numbers of one, and clear ends."""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from envs.errors import BadInputError
from jaxmarl_fac import cli, files, hosts, job
from jaxmarl_fac.hosts import Hosts
from jaxmarl_fac.parallel import lane_mesh
from tests.helpers import free_port

ROOT = Path(__file__).parents[2]
FILTER = ROOT / "jaxmarl_fac" / "stderr_filter.py"
SMALL = [
    "--algo",
    "iql-tabular",
    "--env",
    "two-step",
    "--seeds",
    "4",
    "--env-steps",
    "400",
    "--evaluations",
    "3",
]
LONG = [*SMALL[:-4], "--env-steps", "300000", "--evaluations", "4", "--checkpoint-seconds", "1"]


class Job:
    """Processes of one script, each with one device, and perhaps in a folder of its own."""

    def __init__(self, script, flags, count, log, seconds=30, folders=None):
        address = f"127.0.0.1:{free_port()}"
        one_device = "--xla_force_host_platform_device_count=1 --xla_cpu_multi_thread_eigen=false"
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {one_device}",
        }
        self.logs = [log / f"{index}.log" for index in range(count)]
        self.processes = []
        for index in range(count):
            shared = [
                "--coordinator",
                address,
                "--num-processes",
                str(count),
                "--connect-seconds",
                str(seconds),
            ]
            command = [sys.executable, str(ROOT / "experiments" / script), *flags, *shared]
            command += ["--process-id", str(index)]
            with self.logs[index].open("wb") as file:
                self.processes.append(
                    subprocess.Popen(
                        command,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env=environment,
                        cwd=folders[index] if folders else None,
                    )
                )

    def wait(self, seconds=240):
        """The exit statuses."""
        deadline = time.monotonic() + seconds
        try:
            return [each.wait(deadline - time.monotonic()) for each in self.processes]
        finally:
            for each in self.processes:
                each.kill()

    def lines(self, index, start="error: "):
        """What a process said that begins so."""
        return [line for line in self.logs[index].read_text().splitlines() if line.startswith(start)]


def alone(flags, out, devices, script="train.py"):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false "
        f"--xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, str(ROOT / "experiments" / script), *flags, "--out", str(out)]
    subprocess.run(command, check=True, env=environment)


def assert_same_metrics(one, other):
    one, other = (dict(np.load(folder / "metrics.npz")) for folder in (one, other))
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


# --- processes that train ---


def test_two_processes_have_the_bits_of_one(tmp_path):
    running = Job("train.py", [*SMALL, "--out", str(tmp_path / "two")], 2, tmp_path)
    alone(SMALL, tmp_path / "one", devices=2)
    assert running.wait() == [0, 0]
    assert_same_metrics(tmp_path / "one", tmp_path / "two")
    assert len(running.lines(0, "iql-tabular on two-step: return IQM")) == 1
    assert running.logs[1].read_text() == ""  # only process 0 speaks
    assert [path.name for path in (tmp_path / "two" / "checkpoints").iterdir()] == ["400"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algo", "env"), [("vdn", "matrix-qtran"), ("qmix", "two-step"), ("a2c", "two-step")]
)
def test_four_processes_with_networks(algo, env, tmp_path):
    flags = ["--algo", algo, "--env", env, "--seeds", "8", "--env-steps", "300", "--evaluations", "2"]
    alone(flags, tmp_path / "one", devices=4)
    assert Job("train.py", [*flags, "--out", str(tmp_path / "four")], 4, tmp_path).wait() == [0] * 4
    # To the last bits: the number of threads decides how XLA on CPU splits products.
    one, four = (dict(np.load(tmp_path / name / "metrics.npz")) for name in ("one", "four"))
    for name, values in one.items():
        np.testing.assert_allclose(values, four[name], rtol=1e-5, err_msg=name)


def killed_after_a_checkpoint(running, out, victim, number):
    """Signal one process once there is a checkpoint of a later iteration than 0."""
    while not any(int(path.name) for path in out.glob("**/checkpoints/*") if path.name.isdigit()):
        assert all(each.poll() is None for each in running.processes)
        time.sleep(0.05)
    running.processes[victim].send_signal(number)
    return time.monotonic()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_job_and_one_process_resumes_it(victim, tmp_path):
    out = tmp_path / "killed"
    running = Job("train.py", [*LONG, "--out", str(out)], 2, tmp_path)
    start = killed_after_a_checkpoint(running, out, victim, signal.SIGKILL)
    statuses, other = running.wait(), 1 - victim
    assert time.monotonic() - start < 60
    # XLA aborts a process that does not fail by itself first.
    assert statuses[other] in (1, -signal.SIGABRT)
    assert running.logs[other].read_text().splitlines()[-1:] == [f"error: {job.ENDED}"]
    assert len(running.logs[other].read_text().splitlines()) == (1 if other else 2)
    alone(LONG, out, devices=2)
    alone(LONG, tmp_path / "whole", devices=2)
    assert_same_metrics(out, tmp_path / "whole")


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_and_more_processes_resume(tmp_path):
    out = tmp_path / "stopped"
    running = Job("train.py", [*LONG, "--out", str(out)], 2, tmp_path)
    killed_after_a_checkpoint(running, out, 1, signal.SIGTERM)
    assert running.wait() == [130, 130]
    assert len(running.lines(0, "iql-tabular on two-step: stopped after")) == 1
    assert running.logs[1].read_text() == ""
    assert Job("train.py", [*LONG, "--out", str(out)], 4, tmp_path).wait() == [0] * 4
    alone(LONG, tmp_path / "whole", devices=2)
    assert_same_metrics(out, tmp_path / "whole")


@pytest.mark.slow
def test_a_folder_that_process_0_cannot_make_ends_all(tmp_path):
    running = Job("train.py", [*SMALL, "--out", "/proc/nowhere"], 2, tmp_path)
    assert running.wait() == [2, 2]
    for index in range(2):
        assert running.lines(index) == [
            "error: output folder /proc/nowhere cannot be written: No such file or directory"
        ]


@pytest.mark.slow
@pytest.mark.parametrize("alone", [0, 1])
def test_what_is_wrong_with_one_process_ends_all(alone, tmp_path):
    """A file that one process does not see."""
    folders = [tmp_path / str(index) for index in range(2)]
    for index, folder in enumerate(folders):
        folder.mkdir()
        if index != alone:
            (folder / "game.json").write_text("[[1, 0], [0, 1]]")
    flags = ["--algo", "iql-tabular", "--payoff", "game.json", *SMALL[4:], "--out", str(tmp_path / "out")]
    running = Job("train.py", flags, 2, tmp_path, folders=folders)
    statuses = running.wait()
    assert statuses[alone] == 2 and statuses[1 - alone] in (1, -signal.SIGABRT)
    (line,) = running.lines(alone)
    assert "game.json" in line
    assert running.lines(1 - alone) == [f"error: {job.ENDED}"]
    assert "@ 0x" not in running.logs[1 - alone].read_text()


# --- whole scripts ---


RECORDS_DIFFER = {"seconds", "training_seconds", "device"}


def assert_same_record(one, other, figure):
    one, other = (json.loads((folder / f"{figure}.json").read_text()) for folder in (one, other))
    assert one.keys() == other.keys()
    for name in one.keys() - RECORDS_DIFFER:
        assert one[name] == other[name], name


def test_a_reproduction_has_the_record_of_one_process(tmp_path):
    flags, one, two = ["--figures", "fig3_2a", "--scale", "smoke"], tmp_path / "one", tmp_path / "two"
    running = Job("reproduce_memarl.py", [*flags, "--out", str(two)], 2, tmp_path)
    alone(flags, one, 2, "reproduce_memarl.py")
    assert running.wait() == [0, 0]
    assert_same_record(one, two, "fig3_2a")
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    assert len(running.lines(0, "report: ")) == 1
    assert running.logs[1].read_text() == ""


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_reproduction_is_resumed_by_one_process(victim, tmp_path):
    flags, out = ["--figures", "fig3_1", "--scale", "smoke"], tmp_path / "killed"
    running = Job("reproduce_memarl.py", [*flags, "--out", str(out)], 2, tmp_path)
    killed_after_a_checkpoint(running, out / "runs", victim, signal.SIGKILL)
    assert running.wait()[1 - victim] in (1, -signal.SIGABRT)
    assert running.lines(1 - victim) == [f"error: {job.ENDED}"]
    assert not (out / "fig3_1.json").exists()
    for folder in (out, tmp_path / "whole"):
        alone(flags, folder, 2, "reproduce_memarl.py")
    assert_same_record(out, tmp_path / "whole", "fig3_1")


@pytest.mark.slow
def test_a_comparison_has_the_numbers_of_one_process(tmp_path):
    flags = ["--algos", "iql-tabular", "hysteretic-tabular", "--envs", "two-step", "matrix-qtran"]
    flags += ["--seeds", "3", "--scale", "smoke"]
    one, two = tmp_path / "one", tmp_path / "two"
    for _ in range(2):  # the second time all is finished
        running = Job("compare.py", [*flags, "--out", str(two)], 2, tmp_path)
        assert running.wait() == [0, 0]
        assert len(running.lines(0, "report: ")) == 1
        assert running.logs[1].read_text() == ""
    alone(flags, one, 2, "compare.py")
    runs = sorted(path.name for path in (one / "runs").iterdir())
    assert len(runs) == 4 and runs == sorted(path.name for path in (two / "runs").iterdir())
    for name in runs:
        assert_same_metrics(one / "runs" / name, two / "runs" / name)
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}


@pytest.mark.slow
def test_fewer_lanes_than_processes(tmp_path):
    flags = [*SMALL, "--seeds", "2"]
    assert Job("train.py", [*flags, "--out", str(tmp_path / "three")], 3, tmp_path).wait() == [0] * 3
    alone(flags, tmp_path / "one", devices=2)
    assert_same_metrics(tmp_path / "one", tmp_path / "three")
    alone([*flags, "--env-steps", "800"], tmp_path / "three", devices=1)


# --- meeting, without JAX ---


def meet(*each):
    """What every process is told, in threads: "" or the message of its error."""
    told = {}

    def one(place, flags, digest):
        try:
            hosts._meet(flags, digest)
            told[place] = ""
        except BadInputError as error:
            told[place] = str(error)

    threads = [threading.Thread(target=one, args=(place, *args)) for place, args in enumerate(each)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return [told[place] for place in range(len(each))]


def process(index, count=2, port=None, seconds=5.0):
    return Hosts(f"127.0.0.1:{port}", count, index, seconds)


def test_processes_meet():
    port = free_port()
    assert meet(*((process(index, 3, port), "same") for index in (2, 0, 1))) == ["", "", ""]


def test_another_command_is_refused_everywhere():
    port = free_port()
    told = meet((process(0, port=port), "this"), (process(1, port=port), "that"))
    assert told == ["process 1 was given another command than process 0: give all the same flags"] * 2
    told = meet((process(0, 2, port), "this"), (process(1, 3, port), "this"))
    assert told == ["process 1 was given another command than process 0: give all the same flags"] * 2


def test_a_number_given_twice_is_refused_everywhere():
    port = free_port()
    told = meet(*((process(index, 4, port), "same") for index in (0, 2, 2)))
    assert told == ["two processes have --process-id 2"] * 3


def test_who_does_not_come_is_named():
    port = free_port()
    told = meet(*((process(index, 3, port, 1.0), "same") for index in (0, 1)))
    assert (
        told
        == ["process 2 of 3 did not come within 1 s: start all processes, or raise --connect-seconds"] * 2
    )


def test_a_coordinator_that_does_not_answer():
    port = free_port()
    (told,) = meet((process(1, port=port, seconds=1.0), "same"))
    assert told == (
        f"the coordinator 127.0.0.1:{port} does not answer within 1 s: is process 0 running there, and is "
        "the port open?"
    )


def test_a_name_that_is_not_known_yet(monkeypatch):
    """As that of a pod which does not run yet."""
    port, connect, asked = free_port(), socket.create_connection, []

    def resolve_later(address, timeout):
        asked.append(address)
        if len(asked) < 4:
            raise socket.gaierror(-2, "Name or service not known")
        return connect(("127.0.0.1", port), timeout)

    monkeypatch.setattr(socket, "create_connection", resolve_later)
    later = Hosts(f"pod-0.job:{port}", 2, 1, 5.0)
    assert meet((process(0, port=port), "same"), (later, "same")) == ["", ""]
    assert asked == [("pod-0.job", port)] * 4
    asked.clear()

    def resolve_never(address, timeout):
        asked.append(address)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", resolve_never)
    (told,) = meet((Hosts(f"pod-0.job:{port}", 2, 1, 1.0), "same"))
    assert told == "--coordinator: there is no host pod-0.job within 1 s" and len(asked) > 2


def test_a_silent_guest_at_the_port_is_ignored(monkeypatch):
    monkeypatch.setattr(hosts, "GREETING_SECONDS", 0.2)
    port, told = free_port(), {}
    thread = threading.Thread(target=lambda: told.update(all=meet((process(0, port=port), "x"))))
    thread.start()
    with guest_at(port):
        assert meet((process(1, port=port), "x")) == [""]
        thread.join(10)
    assert told["all"] == [""]


def test_a_port_in_use():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        (told,) = meet((process(0, port=port), "same"))
    assert told.startswith(f"--coordinator: port {port} cannot be used here (Address already in use")


def guest_at(port):
    """Somebody who connects, once process 0 listens."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\n", b'{"process": 1}\n', b"[]\n", b""])
def test_somebody_else_at_the_port_is_ignored(text):
    port, told = free_port(), {}
    thread = threading.Thread(target=lambda: told.update(all=meet((process(0, port=port), "x"))))
    thread.start()
    with guest_at(port) as guest:
        guest.sendall(text)
    assert meet((process(1, port=port), "x")) == [""]
    thread.join(10)
    assert told["all"] == [""]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-processes", "2"], "--num-processes and --process-id need --coordinator HOST:PORT"),
        (["--coordinator", "here"], "--coordinator must be HOST:PORT or auto, not here"),
        (["--coordinator", "a:1"], "--coordinator HOST:PORT needs --num-processes and --process-id"),
        (["--coordinator=auto", "--process-id=0"], "--coordinator auto finds the processes itself"),
        (
            ["--coordinator", "a:1", "--num-processes", "2", "--process-id", "2"],
            "--process-id must be 0 to --num-processes less 1, not 2 of 2",
        ),
        (["--coordinator", "a:1", "--num-processes", "two"], "--num-processes: invalid int value: 'two'"),
        (["--coordinator", "auto", "--connect-seconds", "0"], "--connect-seconds must be 1 to 86400, not 0"),
        (
            ["--coordinator", "auto", "--connect-seconds", "inf"],
            "--connect-seconds must be 1 to 86400, not inf",
        ),
        (["--coordinator", "a:99999"], "--coordinator must be HOST:PORT or auto, not a:99999"),
    ],
)
def test_bad_flags(flags, message):
    with pytest.raises(BadInputError) as refused:
        hosts.join(["--algo", "vdn", *flags])
    assert str(refused.value).startswith(message)


def test_from_the_shell_bad_flags_are_one_line_and_status_2():
    command = [sys.executable, "experiments/train.py", *SMALL, "--num-processes", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --num-processes and --process-id need --coordinator HOST:PORT\n"


def test_the_digest_is_of_all_flags_but_the_process():
    for own in (["--process-id", "3"], ["--process-id=3"]):
        assert hosts._without_flag(["--a", "1", *own, "--b"], "--process-id") == ["--a", "1", "--b"]


# --- parts ---


def test_only_the_main_process_writes(monkeypatch, tmp_path):
    monkeypatch.setattr(job, "_process", 1)
    files.write_text(tmp_path / "file", "text")
    files.prepare_folder(tmp_path / "folder")
    with files.locked(tmp_path / "locked"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_one_process_decides_alone():
    assert hosts.agree(False, True, 7) == (False, True, 7)
    ran = []
    hosts.on_main(lambda: ran.append(1))
    assert ran == [1]


def test_every_process_has_a_device_in_the_mesh(monkeypatch):
    """Three lanes on two processes with two devices each: two of the first, one of the second."""
    # As process 0 sees them, which knows no hardware id of another's devices.
    devices = [
        SimpleNamespace(process_index=process, local_hardware_id=number if process == 0 else None, id=index)
        for index, (process, number) in enumerate(itertools.product(range(2), range(2)))
    ]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    taken = {}
    monkeypatch.setattr("jaxmarl_fac.parallel.Mesh", lambda chosen, axes: taken.update(chosen=list(chosen)))
    for lanes, ids in ((1, [0, 2]), (2, [0, 2]), (3, [0, 1, 2]), (9, [0, 1, 2, 3])):
        lane_mesh(lanes)
        assert [device.id for device in taken["chosen"]] == ids


TRACE = """W1127 12:00:00.0 77 coordination_agent.cc:1] warning
F1127 22:10:22 12 client.h:80] Terminating process because the JAX distributed service detected fatal errors.
Additional GRPC error information from remote target
:UNKNOWN:Error received
*** Check failure stack trace: ***
    @     0x7f0ae0640634  absl::SendToLog()
"""


def test_the_stack_trace_of_a_lost_coordinator_is_one_line():
    for connected, message in (
        ("\0connected\n", job.ENDED),
        ("", "other processes of this job cannot be"),
    ):
        told_by_the_filter(connected, message)


def told_by_the_filter(connected, message):
    told = filtered(f"{connected}W1127 12:00:00.0 77 xla.cc:1] kept\nbefore\n\n{TRACE}after\n")
    (line,) = re.fullmatch(r"W1127 .* kept\nbefore\n\n(.*)\n", told).groups()
    assert line.startswith(f"error: {message}")


def filtered(text):
    """What the filter lets through."""
    return subprocess.run(
        [sys.executable, str(FILTER)], input=text, capture_output=True, text=True, check=True
    ).stderr


def test_what_a_process_says_after_that_another_is_gone_is_dropped():
    said = f"error: {job.ENDED}\n{TRACE}terminate called without an active exception\n"
    assert filtered(f"\0connected\n{said}") == f"error: {job.ENDED}\n"


#: What process 0 writes when another one is lost at the end, cut short.
LOST_AT_THE_END = """\
E1127 22:45:02.9 16161 coordination_service.cc:1520] Shutdown barrier in coordination service has failed:
INTERNAL: Barrier failed because: task is set to ERROR: UNAVAILABLE: Task 1 heartbeat timeout.
This suggests that the workers are out of sync. Either at least one worker (a) crashed early due to program
E1127 22:45:02.9 16161 coordination_service.cc:1549] [15] Use error polling to propagate the
Barrier result: 'INTERNAL: Barrier failed because: task is set to ERROR: UNAVAILABLE: Task 1
E1127 22:45:02.9 16172 coordination_service_agent.cc:289] Polled an error from coordination service
"""


@pytest.mark.parametrize("first", [0, 3, 5])
def test_xla_says_that_another_is_lost_in_several_ways(first):
    said = "".join(LOST_AT_THE_END.splitlines(keepends=True)[first:])
    assert filtered(f"\0connected\n{said}{TRACE}") == f"error: {job.ENDED}\n"


def test_another_end_by_cpp_is_shown():
    text = "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
    assert filtered(text) == text


def test_bad_input_of_one_process_ends_it_after_a_while(monkeypatch, capsys):
    def failing(argv):
        raise BadInputError("wrong")

    def ends(status):
        ended.append(status)
        raise SystemExit(status)

    ended = []
    monkeypatch.setattr(job, "_processes", 2)
    monkeypatch.setattr(os, "_exit", ends)
    monkeypatch.setattr(sys, "argv", ["script"])
    for alone, expected in ((False, []), (True, [2])):
        monkeypatch.setattr(job, "_meet", lambda seconds, alone=alone: not alone and seconds == 10)
        with pytest.raises(SystemExit) as end:
            cli.run(failing)
        assert (end.value.code, ended) == (2, expected)
        assert capsys.readouterr().err == "error: wrong\n"


def test_an_error_of_one_process_ends_it_at_once(monkeypatch, capsys):
    monkeypatch.setattr(job, "_processes", 2)
    ended = []
    monkeypatch.setattr(os, "_exit", lambda status: ended.append(status) or (_ for _ in ()).throw(SystemExit))

    def failing(argv):
        raise ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer")

    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit):
        cli.run(failing)
    assert ended == [1]
    assert capsys.readouterr().err == f"error: {job.ENDED}\n"
