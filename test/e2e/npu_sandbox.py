"""How tests run the entry scripts on the simulated npu, and what they read of it afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from conftest import REPO, script_environment
from simnpu.build import site_folder


@dataclass(frozen=True)
class Event:
    """Something that the device was asked for."""

    kind: str  # to device, to host, synchronize, forward, backward, an optimizer's name, ...
    dtype: str
    numel: int


@dataclass(frozen=True)
class Job:
    """A call of an entry script."""

    script: str
    arguments: tuple[object, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    sigterm_after_step: int = 0


@dataclass(frozen=True)
class Ran:
    """How a call ended."""

    code: int
    stdout: str
    stderr: str
    device: int  # the current one at the end
    settings: dict[str, bool]  # torch.npu's switches at the end
    peak_bytes: list[int]  # of each device
    events: list[Event]

    def kinds(self, kind: str) -> list[Event]:
        """The events of one kind."""
        return [event for event in self.events if event.kind == kind]

    def backward_dtypes(self) -> set[str]:
        """In what the convolutions' gradients were computed."""
        return {event.dtype for event in self.kinds("backward")}

    def between(self, mark: str) -> Iterator[list[Event]]:
        """The events from each `mark` to the next. A step ends with its optimizer's name."""
        places = [i for i, event in enumerate(self.events) if event.kind == mark]
        for first, last in zip(places, places[1:], strict=False):
            yield self.events[first:last]


def npu_environment() -> dict[str, str]:
    """Return the environment in which `import torch` finds the simulated npu."""
    environment = script_environment() | {"PYTHONPATH": str(site_folder())}
    environment.pop("TORCH_DEVICE_BACKEND_AUTOLOAD", None)
    return environment


def run_batch(jobs: Mapping[str, Job], folder: Path) -> dict[str, Ran]:
    """Run the jobs in order, in one process that can also import a stand-in for apex."""
    described = {
        name: {
            "script": job.script,
            "arguments": [str(argument) for argument in job.arguments],
            "environment": dict(job.environment),
            "sigterm_after_step": job.sigterm_after_step,
        }
        for name, job in jobs.items()
    }
    (folder / "jobs.json").write_text(json.dumps(described))
    environment = npu_environment()
    environment["PYTHONPATH"] += f":{REPO / 'test/simnpu/stand_ins'}"
    done = subprocess.run(
        [sys.executable, REPO / "test/simnpu/batch.py", "jobs.json", "results.json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "results.json").read_text())
    return {name: _ran(result) for name, result in results.items()}


def reports(folder: Path) -> dict[int, Ran]:
    """Return by rank what the processes that used the device have left; each rank once."""
    read = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    by_rank = {
        one.pop("rank"): _ran({"code": 0, "stdout": "", "stderr": "", **one}) for one in read
    }
    assert len(by_rank) == len(read)
    return by_rank


def _ran(fields: dict) -> Ran:
    return Ran(**{**fields, "events": [Event(*event) for event in fields["events"]]})


def weights_of(run: Path, name: str = "final_state.pth.tar") -> dict[str, torch.Tensor]:
    """Return the weights that a run has left."""
    return torch.load(run / name, map_location="cpu", weights_only=True)


def largest_difference(
    first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]
) -> float:
    """Return the largest difference between any two numbers of the same name."""
    assert first.keys() == second.keys()
    return max((first[k].double() - second[k].double()).abs().max().item() for k in first)
