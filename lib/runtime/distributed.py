"""Several processes: start and end of the group, small reductions, agreement on stopping.

Gradients travel over the device's own backend (hccl, nccl, gloo). Counts, flags and small objects
travel over a second, gloo group in host memory: exact for integers whatever the device supports,
and never a device synchronisation.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import timedelta
from types import FrameType, TracebackType
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lib.runtime.device import collective_backend
from lib.runtime.environment import RankInfo

T = TypeVar("T")
_TIMEOUT = timedelta(minutes=30)
_SECOND_SIGNAL_S = 2.0
_STDERR = 2
_LIMB_BITS, _NUM_LIMBS = 40, 4  # of a count that travels
_LIMB_MASK = 2**_LIMB_BITS - 1
GIVE_UP = 1000  # above every signal's number: a rank has found what ends the run for all


class Processes:
    """The group of processes of this run; a single process is a group of one."""

    def __init__(self, ranks: RankInfo, device: torch.device):
        self.ranks = ranks
        self.device = device
        self._control: dist.ProcessGroup | None = None
        if ranks.world_size > 1:
            store, _, _ = next(dist.rendezvous("env://", timeout=_TIMEOUT))
            dist.init_process_group(
                collective_backend(device),
                # Addresses that an earlier attempt left in an elastic launcher's store are dead.
                store=dist.PrefixStore(f"attempt_{ranks.restart_count}", store),
                rank=ranks.rank,
                world_size=ranks.world_size,
                timeout=_TIMEOUT,
            )
            self._control = dist.new_group(backend="gloo", timeout=_TIMEOUT)  # type: ignore[assignment]

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._control is not None:
            dist.destroy_process_group()
            self._control = None

    @property
    def control_group(self) -> dist.ProcessGroup | None:
        """The gloo group for host tensors; None for a single process."""
        return self._control

    def sum(self, counts: Sequence[int]) -> list[int]:
        """Return each count summed over all ranks, exactly; up to about 2**180."""
        if self._control is None:
            return list(counts)
        # Sums of losses may be beyond an int64, so that the counts travel in limbs.
        limbs = torch.tensor([_limbs(count) for count in counts], dtype=torch.int64)
        dist.all_reduce(limbs, group=self._control)
        return [
            sum(limb << _LIMB_BITS * place for place, limb in enumerate(row))
            for row in limbs.tolist()
        ]

    def gather(self, item: T) -> list[T]:
        """Return every rank's item in rank order, on every rank."""
        if self._control is None:
            return [item]
        items: list[T | None] = [None] * self.ranks.world_size
        dist.all_gather_object(items, item, group=self._control)
        return items  # type: ignore[return-value]

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.sum([0])

    def agree_on_buffers(self, model: nn.Module) -> None:
        """Give every rank rank 0's floating-point buffers (BatchNorm's running statistics).

        Rank 0's own never change by this, so a checkpoint of rank 0 resumes exactly.
        """
        if self._control is None:
            return
        buffers = [b for b in model.buffers() if b.is_floating_point()]
        flat = torch.cat([b.reshape(-1) for b in buffers])
        dist.broadcast(flat, src=0)
        for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))


def _limbs(count: int) -> list[int]:
    """Return a count in parts of 40 bits, the lowest first; the highest holds what is left."""
    lower = [count >> _LIMB_BITS * place & _LIMB_MASK for place in range(_NUM_LIMBS - 1)]
    return [*lower, count >> _LIMB_BITS * len(lower)]


def synchronised_norms(network: nn.Module, processes: Processes) -> nn.Module:
    """Return the network with batch norms that take the images of all ranks together.

    The parameters and their names stay. torch's own waits for the device in every such layer; on
    npu torch_npu puts its own in place. A single process has nothing to synchronise.
    Raises ValueError for several processes on the cpu.
    """
    if processes.ranks.world_size == 1:
        return network
    if processes.device.type == "cpu":
        raise ValueError(
            "TRAIN.SYNC_BN true: torch cannot synchronise batch norms on cpu; leave it at false, "
            "or train on cuda or npu"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)


class WaitInterrupted(BaseException):
    """A signal came while a single process waited for its next batch, between two steps.

    No Exception: what a library does about its own errors must not swallow it.
    """

    def __init__(self, signal_number: int):
        super().__init__(signal_number)
        self.signal = signal_number


class StopRequest:
    """Turns SIGTERM and Ctrl-C into a flag that all ranks see at the same step.

    `poll` is called once a step by every rank. With several ranks it reads the reduction begun by
    the call before and begins the next, so it never waits for the network in the usual case.
    A second Ctrl-C, some seconds later, ends the process at once. Rank 0 says on stderr that a
    signal has come, and what is still done: with `saves` the state is saved after the step.
    """

    def __init__(self, processes: Processes, clock: Callable[[], float], *, saves: bool = True):
        self._group = processes.control_group
        self._is_main, self._saves = processes.ranks.is_main, saves
        self._is_waiting, self._pid = False, os.getpid()
        self._clock = clock
        self._signal = 0
        self._first_at_s = 0.0
        self._flag = torch.zeros(1, dtype=torch.int64)
        self._pending: dist.Work | None = None
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pending is not None and kind is None:
            self._pending.wait()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def poll(self) -> int:
        """Return the signal's number once one has arrived on any rank, else 0."""
        if self._group is None:
            return self._signal
        agreed = 0
        if self._pending is not None:
            self._pending.wait()
            agreed = int(self._flag)
        self._flag.fill_(self._signal)
        self._pending = dist.all_reduce(
            self._flag, op=dist.ReduceOp.MAX, group=self._group, async_op=True
        )
        return agreed

    def interruptible(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches; raise WaitInterrupted for a signal while one is waited for.

        Several processes stop together after a step, so there nothing is raised.
        """
        iterator = iter(batches)
        while True:
            self._is_waiting = self._group is None
            try:
                if self._is_waiting and self._signal:  # it came since the last step
                    raise WaitInterrupted(self._signal)
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self._is_waiting = False
            yield batch

    def give_up(self) -> None:
        """Have `poll` return GIVE_UP on all ranks."""
        self._signal = GIVE_UP

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a loading process, not yet set up: its parent's affair
            return
        # torchrun passes a Ctrl-C on that the terminal has sent already; only a later one insists.
        now_s = self._clock()
        if self._signal == signal.SIGINT == number and now_s - self._first_at_s > _SECOND_SIGNAL_S:
            raise KeyboardInterrupt
        if not self._signal:
            self._signal, self._first_at_s = number, now_s
            self._acknowledge(number)
        if self._is_waiting:
            self._is_waiting = False
            raise WaitInterrupted(number)

    def _acknowledge(self, number: int) -> None:
        if not self._is_main:
            return
        line = "SIGTERM: finishing this step" + (", then saving" if self._saves else "")
        if number == signal.SIGINT:
            again = "discards it" if self._saves else "ends at once"
            line = f"{line.replace('SIGTERM', 'Ctrl-C')}; Ctrl-C again {again}"
        with suppress(OSError):  # past Python's own buffers, in which the signal may have come
            os.write(_STDERR, f"{line}\n".encode())


def gradient_sync(model: nn.Module, *, enabled: bool) -> AbstractContextManager[None]:
    """Let a backward pass within the block send the gradients to the other ranks, or keep them.

    Those that are kept add up to what is sent next. A model of a single process has none to send.
    """
    if enabled or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return model.no_sync()
