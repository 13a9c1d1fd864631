"""Run an ONNX file over a folder, with the command line, files and figures of Ascend's ais_bench.

`runner` is the pipeline, `devices` splits it over processes; `session` computes with ONNX Runtime,
`openvino_session` with OpenVINO, `model` is what they tell of a model; `inputs` finds the samples,
`recipes` compares how they are prepared, `sources` reads, `outputs` writes, `summary` tells the
times; `ais_bench_options` are that tool's further ones. Imports neither torch nor, before a model
is opened, one of the two.
"""

from lib.offline_infer.devices import run_on_devices
from lib.offline_infer.runner import InferRequest, Outcome, run_request
from lib.offline_infer.sources import SizeMismatch

__all__ = ["InferRequest", "Outcome", "SizeMismatch", "run_on_devices", "run_request"]
