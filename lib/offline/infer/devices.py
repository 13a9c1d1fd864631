"""Several devices: a process each, which takes its part of the samples."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from lib.offline.infer.runner import InferRequest, Outcome, Say, run_request
from lib.offline.infer.summary import end_to_end_line
from lib.runtime.cli import PartlyFailed, Stopped, say
from lib.runtime.launch import end_with_parent
from lib.runtime.signals import deferred_signals, signals_as_exceptions


def run_on_devices(request: InferRequest, devices: Sequence[int], say: Say) -> Outcome:
    """Run a request on each of the devices at once and return all their outcomes as one.

    The samples are cut into equal parts in their order; results go to `<output>/device<N>`.
    Pure inference runs whole on each. One device runs in this process, without such a folder.
    Raises what `run_request` raises, PartlyFailed where a process dies, Stopped upon SIGTERM.
    """
    if len(devices) == 1:
        with deferred_signals() as check:
            return run_request(replace(request, device=devices[0]), say, check)
    with signals_as_exceptions():
        return _run_in_processes(request, devices)


def _run_in_processes(request: InferRequest, devices: Sequence[int]) -> Outcome:
    children = [_start(_part(request, devices, index)) for index in range(len(devices))]
    try:
        answers = [_answer(child, device) for child, device in zip(children, devices, strict=True)]
    except BaseException:  # a stop
        for process, _ in children:
            process.terminate()
        raise
    finally:
        for process, _ in children:
            process.join()
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return _together([answer for answer in answers if isinstance(answer, Outcome)])


def _part(request: InferRequest, devices: Sequence[int], index: int) -> InferRequest:
    output = request.output and request.output / f"device{devices[index]}"
    return replace(
        request, device=devices[index], output=output, part=index, num_parts=len(devices)
    )


def _start(request: InferRequest) -> tuple[SpawnProcess, Connection]:
    # Not forked: ONNX Runtime's and CUDA's threads would not survive that.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(request, theirs), daemon=True)
    process.start()
    theirs.close()  # so that its end is noticed here
    return process, ours


def _work(request: InferRequest, answer: Connection) -> None:
    """The life of one process: what can be mended by the user is sent back, bugs are printed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent passes it on
    end_with_parent()
    try:
        with deferred_signals() as check:
            answer.send(run_request(request, say, check))
    except (ValueError, OSError) as error:
        answer.send(error)
    except Stopped as stop:
        raise SystemExit(stop.exit_code) from None


def _answer(child: tuple[SpawnProcess, Connection], device: int) -> Outcome | Exception:
    process, connection = child
    try:
        answer: Outcome | Exception = connection.recv()
    except EOFError:
        process.join()
        return PartlyFailed(
            f"the process of device {device} ended early (exit code {process.exitcode})"
        )
    return answer


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    """Return one outcome: every device's lines in turn, then the sums."""
    num_images = sum(outcome.num_images for outcome in outcomes)
    start_s = min(outcome.start_s for outcome in outcomes)
    end_s = max(outcome.end_s for outcome in outcomes)
    images_per_s = sum(outcome.images_per_s for outcome in outcomes)
    lines = [line for outcome in outcomes for line in outcome.lines]
    lines.append(
        end_to_end_line(num_images, end_s - start_s, f"end-to-end of {len(outcomes)} devices")
    )
    lines.append(f"[INFO] summary throughput: {images_per_s}")
    problems = tuple(problem for outcome in outcomes for problem in outcome.problems)
    return Outcome(tuple(lines), problems, num_images, start_s, end_s, images_per_s)
