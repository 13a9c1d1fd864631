"""One process, and two real ones over gloo: sums, agreement, and stopping at the same step."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lib.models.hrnet import build_hrnet
from lib.runtime.distributed import Processes, StopRequest, gradient_sync, synchronised_norms
from lib.runtime.environment import RankInfo

REPO = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")

# What each of two processes does; only rank 0 gets the signal, in its third step.
WORKER = """
import json, os, pathlib, signal, sys, time
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from lib.runtime.distributed import Processes, StopRequest, gradient_sync
from lib.runtime.environment import read_environment

ranks = read_environment().ranks
facts = {}
with Processes(ranks, torch.device("cpu")) as processes:
    facts["sum"] = processes.sum([ranks.rank + 1, 2**61, 0, 2**150 + 1, -5])
    facts["gather"] = processes.gather({"rank": ranks.rank, "text": "x" * (1 + ranks.rank)})
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm1d(2))
    for buffer in model.buffers():
        buffer.fill_(ranks.rank + 1)
    processes.agree_on_buffers(model)
    facts["buffers"] = {name: buffer.tolist() for name, buffer in model.named_buffers()}
    linear = DistributedDataParallel(nn.Linear(1, 1, bias=False))
    for part in (1.0, 10.0):  # rank 0 has 1 and 10, rank 1 has 2 and 20
        with gradient_sync(linear, enabled=part == 10.0):
            linear(torch.full((1, 1), part * (1 + ranks.rank))).sum().backward()
        facts.setdefault("gradients", []).append(linear.module.weight.grad.item())
    with StopRequest(processes, time.monotonic) as stop:
        for step in range(10):
            if ranks.rank == 0 and step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            if ranks.rank == 1:
                time.sleep(0.01)
            number = stop.poll()
            if number:
                facts["stopped"] = [step, number]
                break
    processes.barrier()
facts["closed"] = not dist.is_initialized()
os.environ["MASTER_PORT"] = sys.argv[2]  # else rank 1 might still find the first meeting place
try:
    with Processes(ranks, torch.device("cpu")):
        raise OSError("a full disk")
except OSError as error:
    facts["closed_after_an_error"] = [str(error), not dist.is_initialized()]
pathlib.Path(sys.argv[1], f"{ranks.rank}.json").write_text(json.dumps(facts))
"""


def free_ports():
    """Two ports that nobody listens on."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in (first, second)]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What each of two processes wrote down."""
    folder, started = tmp_path_factory.mktemp("ranks"), []
    port, later_port = free_ports()
    for rank in ("0", "1"):
        environment = {
            **os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1",
            "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        }  # fmt: skip
        command = [sys.executable, "-c", WORKER, folder, later_port]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE))
    try:
        for process in started:
            _, stderr = process.communicate(timeout=60)
            assert process.returncode == 0, stderr.decode()
    finally:
        for process in started:
            process.kill()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_counts_are_summed_exactly_over_two_ranks(two_ranks):
    """Pitfall 18, Fault S9: integers, beyond what a float or 64 bits could hold."""
    assert [facts["sum"] for facts in two_ranks] == [[3, 2**62, 0, 2**151 + 2, -10]] * 2


def test_items_are_gathered_in_rank_order_on_every_rank(two_ranks):
    expected = [{"rank": 0, "text": "x"}, {"rank": 1, "text": "xx"}]
    assert [facts["gather"] for facts in two_ranks] == [expected] * 2


def test_gradients_of_parts_travel_once_with_the_last(two_ranks):
    """After the first part each rank has its own; then the mean over ranks of both parts' sums."""
    assert [facts["gradients"] for facts in two_ranks] == [[1.0, 16.5], [2.0, 16.5]]


def test_a_model_of_one_process_has_no_gradients_to_hold_back():
    linear = nn.Linear(1, 1, bias=False)
    with gradient_sync(linear, enabled=False):
        linear(torch.ones(1, 1)).sum().backward()
    assert linear.weight.grad.item() == 1


def test_running_statistics_become_rank_0s(two_ranks):
    """Pitfall 18: both ranks evaluate the same network. Counters are not statistics."""
    for rank, facts in enumerate(two_ranks):
        assert facts["buffers"] == {
            "0.running_mean": [1.0] * 3, "0.running_var": [1.0] * 3,
            "0.num_batches_tracked": rank + 1,
            "1.running_mean": [1.0] * 2, "1.running_var": [1.0] * 2,
            "1.num_batches_tracked": rank + 1,
        }  # fmt: skip


def test_both_ranks_stop_at_the_same_step_though_one_got_the_signal(two_ranks):
    first, second = (facts["stopped"] for facts in two_ranks)
    assert first == second
    step, number = first
    assert number == signal.SIGTERM
    assert step == 4  # the poll after the one in which rank 0 told


def test_the_group_is_closed_at_the_end_and_after_an_error(two_ranks):
    for facts in two_ranks:
        assert facts["closed"] is True
        assert facts["closed_after_an_error"] == ["a full disk", True]


def single():
    return Processes(RankInfo(), CPU)


def test_a_single_process_needs_no_group():
    """Pitfall 24: without a launcher nothing is looked for in the environment."""
    with single() as processes:
        assert processes.control_group is None
        assert not torch.distributed.is_initialized()
        assert processes.sum([1, 2]) == [1, 2]
        assert processes.gather("item") == ["item"]
        processes.barrier()
        network = nn.BatchNorm1d(2)
        network.running_mean.fill_(7.0)
        processes.agree_on_buffers(network)
        assert network.running_mean.tolist() == [7.0, 7.0]


def ranks_on(kind, world_size):
    """Stands in for the processes of a run on devices of a kind that is not here."""
    return SimpleNamespace(ranks=RankInfo(world_size=world_size), device=SimpleNamespace(type=kind))


@pytest.mark.parametrize("kind", ["cuda", "npu"])
def test_batch_norms_are_synchronised_where_several_devices_compute(kind):
    network = build_hrnet("hrnet_w18_small_v1", 5)
    before = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    network = synchronised_norms(network, ranks_on(kind, 2))
    assert {name: tensor.data_ptr() for name, tensor in network.state_dict().items()} == before
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(type(norm) is nn.SyncBatchNorm for norm in norms)


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_a_single_process_has_no_batch_norms_to_synchronise(kind):
    network = nn.Sequential(nn.BatchNorm2d(2))
    assert type(synchronised_norms(network, ranks_on(kind, 1))[0]) is nn.BatchNorm2d


def test_batch_norms_of_several_processes_on_the_cpu_cannot_be_synchronised():
    with pytest.raises(ValueError, match="TRAIN.SYNC_BN true: torch cannot .* on cpu"):
        synchronised_norms(nn.BatchNorm2d(2), ranks_on("cpu", 2))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_told_at_the_next_poll_and_the_old_handlers_come_back(number):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with StopRequest(single(), lambda: 0.0) as stop:
        assert stop.poll() == 0
        os.kill(os.getpid(), number)
        assert stop.poll() == stop.poll() == number
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_only_a_later_second_ctrl_c_ends_the_process_at_once():
    now_s = 100.0
    with StopRequest(single(), lambda: now_s) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        now_s += 0.5  # the copy that torchrun passes on
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.poll() == signal.SIGINT
        now_s += 5.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_second_sigterm_leaves_time_to_save():
    now_s = 0.0
    with StopRequest(single(), lambda: now_s) as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            now_s += 60.0
        assert stop.poll() == signal.SIGTERM
