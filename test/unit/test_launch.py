"""Which processes are started where, and how a started run's end is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lib.runtime.launch import Cluster, _failure

REPO = Path(__file__).resolve().parents[2]
REASON, ITS_OWN = r"RuntimeError: no\x1b memory", "its own message stands above, or in its log"

# Started once a rank. Writes down what it was given; then ends as it was told to.
WORKER = """
import json, os, pathlib, signal, sys, time
folder, ending, *rest = sys.argv[1:]
rank = os.environ["RANK"]
names = ("LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS")
facts = {"arguments": rest, **{name: os.environ[name] for name in names}}
pathlib.Path(folder, f"{ending}_{rank}.json").write_text(json.dumps(facts))
if ending == "fails" and rank == "1":
    sys.exit(3)
if ending.endswith("wrong"):
    from lib.runtime.cli import run_script
    from lib.runtime.launch import let_the_first_rank_speak
    def main():
        with let_the_first_rank_speak(int(rank)):
            if rank == "0":
                time.sleep(1 if ending == "all are wrong" else 60)  # rank 1 is the first to know
            raise ValueError(f"{ending}, says rank {rank}")
    run_script(main)
if ending == "stops":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while rank == "0" and not pathlib.Path(folder, "stops_1.json").exists():
        time.sleep(0.02)
    if rank == "0":
        os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
"""
# Starts the worker above once an ending and writes down what became of it.
DRIVER = """
import json, pathlib, sys
from lib.runtime.cli import PartlyFailed, Stopped
from lib.runtime.launch import Cluster, run_under_torchrun
folder = pathlib.Path(sys.argv[1])
ends = {}
for ending in ("succeeds", "fails", "stops", "all are wrong", "one is wrong"):
    arguments = [str(folder), ending, "--nproc", "1", "--cards=2", "a b", "$HOME"]
    try:
        run_under_torchrun(folder / "worker.py", arguments, Cluster(num_cards=2))
        ends[ending] = "returned"
    except PartlyFailed as error:
        ends[ending] = str(error)
    except (SystemExit, ValueError) as error:
        ends[ending] = str(error)
    except Stopped as stop:
        ends[ending] = stop.exit_code
(folder / "ends.json").write_text(json.dumps(ends))
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """A folder in which two processes were started once an ending; `stderr` is what they said."""
    folder = tmp_path_factory.mktemp("launched runs")
    (folder / "worker.py").write_text(WORKER)
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, folder],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "stderr").write_text(done.stderr)
    return folder


def _facts(launched, ending):
    return [json.loads((launched / f"{ending}_{rank}.json").read_text()) for rank in (0, 1)]


def _end(launched, ending):
    return json.loads((launched / "ends.json").read_text())[ending]


def test_every_rank_is_told_where_it_stands(launched):
    """Pitfall 24: ranks come from the launcher."""
    facts = _facts(launched, "succeeds")
    assert [fact["LOCAL_RANK"] for fact in facts] == ["0", "1"]
    assert {(fact["WORLD_SIZE"], fact["LOCAL_WORLD_SIZE"]) for fact in facts} == {("2", "2")}
    assert _end(launched, "succeeds") == "returned"


def test_arguments_arrive_as_they_are(launched):
    """Pitfall 35: blanks survive, and torchrun takes none of them for its own."""
    for fact in _facts(launched, "succeeds"):
        assert fact["arguments"] == ["--nproc", "1", "--cards=2", "a b", "$HOME"]


def test_the_cores_are_shared_out(launched):
    for fact in _facts(launched, "succeeds"):
        assert 1 <= int(fact["OMP_NUM_THREADS"]) <= (os.cpu_count() or 1)


def test_a_rank_that_fails_is_named_with_its_exit_code(launched):
    """Pitfall 35: a failing run fails its launcher."""
    assert _end(launched, "fails").startswith("rank 1 ended with exit code 3; ")


def test_a_mistake_that_all_ranks_find_is_told_by_the_first_alone(launched):
    """Whichever finds it first."""
    assert _end(launched, "all are wrong") == "2"  # nothing is added to what rank 0 has said
    assert "[Error] all are wrong, says rank 0\n" in (launched / "stderr").read_text()
    assert "all are wrong, says rank 1" not in (launched / "stderr").read_text()


def test_a_mistake_that_only_another_rank_finds_is_looked_for_in_its_log(launched):
    assert _end(launched, "one is wrong") == "rank 1 found a mistake; see its log"
    assert "[Error] one is wrong, says rank 1\n" in (launched / "stderr").read_text()


@pytest.mark.parametrize(
    ("codes", "first", "end"),
    [
        ({1: 3}, 1, f"rank 1 ended with exit code 3: {REASON}; its log is {{log}}"),
        ({2: -9}, 2, f"rank 2 was ended by SIGKILL; {ITS_OWN}"),
        ({1: 2}, 1, f"rank 1: {REASON}"),
        ({0: 1, 1: -15}, 0, "1"),  # a line, or a traceback, that stands on the console
        ({0: 2, 1: 2}, 1, "2"),
        ({0: -9, 1: 1}, 0, f"rank 0 was ended by SIGKILL; {ITS_OWN}"),
    ],
)
def test_a_failure_is_told_once_with_the_reason_from_the_ranks_log(codes, first, end, tmp_path):
    """Faults M5, R7: one line pointed at a log, and the launcher's own quoted it."""
    log = tmp_path / "rank_1.log"
    log.write_text("File x\nRuntimeError: no\x1b memory\n[Error] a later one\n")
    cluster = Cluster(num_cards=4)
    assert str(_failure(codes, first, cluster, log_dir=tmp_path)) == end.format(log=log)


def test_a_stopped_run_ends_with_the_signals_exit_code(launched):
    assert _end(launched, "stops") == 143


def test_one_machine_takes_a_free_port():
    """Pitfall 24: two jobs on one host do not collide on a port."""
    arguments = Cluster(num_cards=2, port=29500).torchrun_arguments()
    assert arguments == ["--standalone", "--nproc-per-node=2", "--max-restarts=0"]


def test_several_machines_meet_at_one_address():
    """Pitfall 24."""
    cluster = Cluster(8, 2, 1, "10.0.0.1", 1234, max_restarts=3)
    assert cluster.num_processes == 16
    arguments = set(cluster.torchrun_arguments())
    assert arguments == {
        "--nnodes=2", "--node-rank=1", "--master-addr=10.0.0.1", "--master-port=1234",
        "--nproc-per-node=8", "--max-restarts=3",
    }  # fmt: skip


def test_a_single_process_is_the_default():
    assert Cluster().num_processes == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_cards": 0}, "--cards 0 .* at least 1, 1 and 0 are needed"),
        ({"num_machines": 0}, "--nproc 0 .* at least 1, 1 and 0 are needed"),
        ({"max_restarts": -1}, "--max_restarts -1: at least 1, 1 and 0 are needed"),
        ({"num_machines": 2, "machine_rank": 2}, r"--dn 2: with --nproc 2 .* is 0\.\.1"),
        ({"machine_rank": -1}, "--dn -1"),
        ({"num_cards": 5000}, "--cards 5000 is above 256; --nproc counts"),
        (
            {"num_machines": 10**9},
            "--nproc 1000000000 is above 4096; --nproc counts machines, --dn is",
        ),
        ({"port": 0}, r"--port 0: a port is 1\.\.65535"),
        ({"port": 65536}, "--port 65536"),
    ],
)
def test_numbers_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Cluster(**settings)


def test_a_launcher_with_process_id_1_as_in_a_container_is_not_taken_for_dead():
    code = "import os; os.getppid = lambda: 1; from lib.runtime.launch import end_with_parent"
    code += "; end_with_parent(); print('goes on')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.stdout == "goes on\n", done.stderr
