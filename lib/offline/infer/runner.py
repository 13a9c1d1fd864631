"""One run of a model over its samples, from the options to the closing lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from lib.data.picture_files import find_sources
from lib.offline.infer.inputs import check_stems, find_tensor_files, samples_of
from lib.offline.infer.model import ModelDescription, Session, Shapes, check_shapes
from lib.offline.infer.outputs import OutputFolder
from lib.offline.infer.pipeline import Tally, batches_of, compute_all, warm_up
from lib.offline.infer.recipes import check_bins, recipe_of_pictures, wanted_recipe
from lib.offline.infer.session import open_session
from lib.offline.infer.sources import Pictures, PureData, Source, TensorFiles
from lib.offline.infer.summary import (
    end_to_end_line,
    summary_lines,
    summary_path,
    throughput,
    write_summary,
)
from lib.offline.recipe_options import AskedRecipe
from lib.runtime.environment import num_cores

Say = Callable[[str], None]


@dataclass(frozen=True)
class InferRequest:
    """What is to be run: the options of the command line."""

    model: Path
    input: str | None = None  # files or folders, comma list
    input_images: Path | None = None
    output: Path | None = None  # the folder of the results; None saves nothing
    outfmt: str = "BIN"
    loop: int = 1
    warmup_count: int = 1
    batch_size: int | None = None  # for the throughput's arithmetic only
    device: int = 0
    dynamic_batch: int = 0
    pure_data_type: str = "zero"
    output_batch_axis: int = 0
    display_all_summary: bool = False
    limit: int | None = None  # samples
    backend: str = "onnxruntime"
    precision: str = "fp32"
    recipe: AskedRecipe | None = None  # of the pictures; None: as the model records
    shapes: Shapes = field(default_factory=dict)  # that the inputs should have
    arguments: tuple[str, ...] = ()  # the command line, for the summary
    part: int = 0  # of the samples only this part, of `num_parts`
    num_parts: int = 1

    @property
    def is_pure(self) -> bool:
        """True where nothing is read and made-up data is computed."""
        return self.input is None and self.input_images is None


@dataclass(frozen=True)
class Outcome:
    """What a run did: its closing lines, and what is to be told about samples without result."""

    lines: tuple[str, ...]
    problems: tuple[str, ...]  # `<file>: <reason>`
    num_images: int  # real images computed, each loop counted
    start_s: float  # seconds since the epoch, around reading, computing and writing
    end_s: float
    images_per_s: float  # of computing alone, what ais_bench calls throughput


def run_request(request: InferRequest, say: Say, check: Callable[[], None]) -> Outcome:
    """Run the model over all samples of the request, saying the steps line by line.

    Raises ValueError and FileNotFoundError for what can't be run, and whatever `check` raises: it
    is called before the first batch and after each.
    """
    cores = max(1, num_cores() // request.num_parts)
    session = _open_session(request, cores, say)
    check_shapes(session.model, request.shapes)
    source, remarks = _open_source(request, session.model, say)
    warnings = [f"[WARN] {remark}" for remark in remarks]
    for warning in warnings:
        say(warning)
    folder = OutputFolder(
        request.output, request.outfmt, request.output_batch_axis, source.samples_per_batch
    )
    _prepare(folder, source, say)
    batches = batches_of(source)
    if not request.is_pure:
        _say_batches(source, session.model, len(batches), say)
    check()
    warm_up(session, source, batches, count=request.warmup_count)
    say(f"[INFO] warm up {request.warmup_count} done")
    start_s = time.time()
    with _progress(request, len(batches) * request.loop, check) as advance:
        tally = compute_all(
            session, source, folder, loop=request.loop, num_cores=cores, advance=advance
        )
    end_s = time.time()
    images_per_batch = session.model.batch_size / source.samples_per_batch
    num_images = round(len(tally.written) * images_per_batch * request.loop)
    lines, images_per_s = warnings, 0.0  # once more at the end, where figures are read
    if tally.times:
        batch_size = request.batch_size or session.model.batch_size
        lines = [*warnings, end_to_end_line(num_images, end_s - start_s)]
        lines += _summary(request, tally, batch_size)
        images_per_s = throughput(tally.times, batch_size)
    return Outcome(tuple(lines), _problems(tally), num_images, start_s, end_s, images_per_s)


def _open_session(request: InferRequest, num_threads: int, say: Say) -> Session:
    session = open_session(
        request.model,
        backend=request.backend,
        dynamic_batch=request.dynamic_batch,
        device=request.device,
        num_threads=num_threads,
        precision=request.precision,
    )
    say(f"[INFO] load model {request.model} success")
    say(f"[INFO] {session.runtime}")
    say(f"[INFO] try get model batchsize:{session.model.batch_size}")
    return session


@contextmanager
def _progress(
    request: InferRequest, num_runs: int, check: Callable[[], None]
) -> Iterator[Callable[[], None]]:
    """Yield a function to be called after each run: it moves a bar, on a terminal, and may stop."""
    show = request.num_parts == 1 and sys.stderr.isatty()
    with tqdm(desc="Inference Processing", total=num_runs, leave=False, disable=not show) as bar:

        def advance() -> None:
            bar.update()
            check()

        yield advance


def _open_source(
    request: InferRequest, model: ModelDescription, say: Say
) -> tuple[Source, tuple[str, ...]]:
    """Find and check the samples of this request, and of these its part; also what is in doubt."""
    if request.is_pure:
        return PureData(model, request.pure_data_type), ()
    wanted = wanted_recipe(model, request.recipe)
    source: TensorFiles | Pictures
    if request.input_images is not None:
        sources = find_sources(request.input_images, leave_out=request.output)
        for line in sources.left_out.lines(sources.root) if request.part == 0 else ():
            say(line)
        samples = samples_of(sources)[: request.limit]
        recipe, remarks = recipe_of_pictures(model, wanted)
        source = Pictures(samples, model, recipe)
    else:
        samples = find_tensor_files(str(request.input), len(model.inputs))[: request.limit]
        folders = sorted({path.parent for sample in samples for path in sample.files})
        checked = check_bins(folders, model, wanted)
        remarks = checked.remarks
        source = TensorFiles(samples, model, checked.sums)
    if request.output is not None:
        check_stems(samples)
    count, num_parts = len(samples), request.num_parts
    if count < num_parts:
        raise ValueError(f"{count} files for {num_parts} devices: give --device fewer")
    # All are checked, then a part is taken.
    begin, end = (count * part // num_parts for part in (request.part, request.part + 1))
    source.samples = samples[begin:end]
    return source, remarks


def _prepare(folder: OutputFolder, source: Source, say: Say) -> None:
    if folder.folder is None:
        return
    if folder.folder.exists() and not folder.folder.is_dir():
        raise NotADirectoryError(f"--output: {folder.folder} is a file")
    inputs = {file.parent for sample in source.samples for file in sample.files}
    if folder.folder.resolve() in {parent.resolve() for parent in inputs}:
        raise ValueError(f"--output: {folder.folder} is the folder of the inputs; give another")
    num_others = folder.clear(source.samples)
    summary_path(folder.folder).unlink(missing_ok=True)
    folder.folder.mkdir(parents=True, exist_ok=True)
    say(f"[INFO] output path:{folder.folder}")
    if num_others:
        say(f"[WARN] {num_others} predictions of other runs stay in {folder.folder}")


def _say_batches(source: Source, model: ModelDescription, num_batches: int, say: Say) -> None:
    say(
        f"[INFO] get filesperbatch files0 size:{source.sample_bytes} "
        f"tensor0size:{model.inputs[0].num_bytes} "
        f"filesperbatch:{source.samples_per_batch} runcount:{num_batches}"
    )
    if source.samples_per_batch != model.batch_size:
        say(
            f"[WARN] a batch of {model.batch_size} takes {source.samples_per_batch} of these "
            f"files: are they made for {model.inputs[0].dtype} {model.inputs[0].shape}?"
        )


def _problems(tally: Tally) -> tuple[str, ...]:
    bad = [sample.inputs[0] for sample in tally.written.values() if not sample.is_finite]
    return (*tally.failures, *(f"{path}: the output is not finite" for path in bad))


def _summary(request: InferRequest, tally: Tally, batch_size: int) -> list[str]:
    """Write the summary where results are saved; return its lines."""
    if request.output is not None:
        write_summary(
            summary_path(request.output),
            tally.times,
            batch_size,
            written=list(tally.written.values()),
            arguments=request.arguments,
        )
    return summary_lines(tally.times, batch_size, display_all=request.display_all_summary)
