"""The network as a graph on the disk: torch's two exporters, made quiet and tidy."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import nn

from lib.export.atc_rules import MAX_IR_VERSION
from lib.export.graph import (
    BATCH_AXIS,
    INPUT,
    OUTPUT,
    drop_identities,
    name_batch_axis,
    replace_resizes,
    simplify,
    strip_traces,
)
from lib.export.options import ATC, MODERN, ExportOptions
from lib.models.folding import fold_batch_norms

_TRACED_BATCH = 2  # of a dynamic export; torch.export takes a batch of 1 for a constant


def check_available(options: ExportOptions) -> None:
    """Raise ValueError where the options need a package that is not installed."""
    needed = {"--profile modern": ("onnxscript", options.profile == MODERN)}
    needed["--simplify"] = ("onnxslim", options.simplify)
    for option, (package, asked) in needed.items():
        if asked and importlib.util.find_spec(package) is None:
            raise ValueError(f"{option} needs {package}: pip install {package}")


def write_graph(
    network: nn.Module, path: Path, options: ExportOptions, *, image_size: int
) -> onnx.ModelProto:
    """Export `network` (evaluation mode, CPU) to `path` and return the tidied graph.

    The file at `path` is scratch: the caller saves what is returned.
    """
    network = fold_batch_norms(network) if options.fold_bn else network.eval()
    batch = _TRACED_BATCH if options.batch is None else options.batch
    images = torch.zeros(batch, 3, image_size, image_size)
    exporter = _export_torchscript if options.profile == ATC else _export_dynamo
    with _quiet(), torch.no_grad():
        exporter(network, images, path, options)
        model = onnx.load(str(path))
    strip_traces(model)
    name_batch_axis(model)
    drop_identities(model)
    if options.no_resize:
        replace_resizes(model)
    if options.simplify:
        with _quiet():
            model = simplify(model)
    if options.profile == ATC:
        model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    return model


def _export_torchscript(
    network: nn.Module, images: torch.Tensor, path: Path, options: ExportOptions
) -> None:
    dynamic_axes = {INPUT: {0: BATCH_AXIS}, OUTPUT: {0: BATCH_AXIS}}
    # Since torch 2.9 the other exporter is the default; older ones may offer no choice.
    export = functools.partial(torch.onnx.export, dynamo=False)
    if "dynamo" not in inspect.signature(torch.onnx.export).parameters:
        export = functools.partial(torch.onnx.export)
    export(
        network,
        (images,),
        str(path),
        opset_version=options.opset_version,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_axes=dynamic_axes if options.batch is None else None,
    )


def _export_dynamo(
    network: nn.Module, images: torch.Tensor, path: Path, options: ExportOptions
) -> None:
    free = ({0: torch.export.Dim(BATCH_AXIS)},)
    torch.onnx.export(
        network,
        (images,),
        str(path),
        dynamo=True,
        opset_version=options.opset_version,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=free if options.batch is None else None,
        external_data=False,
        verbose=False,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep to themselves what the exporters print: progress, and that they are old or new."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
