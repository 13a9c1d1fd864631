"""Inert stand-ins for what other projects' checkpoints hold beside their weights.

A pickle may name any function to be called. torch.load calls those alone that it knows, and refuses
a file for any other: for a log of losses or the options of a command line too. Each name below
stands for something here that keeps what it is given and does nothing else; nothing of the project
that it belongs to is imported. What isn't listed is never called.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

import torch

from lib.models.weights.numpy_stand_ins import (
    Inert,
    NumpyArray,
    NumpyType,
    numpy_array,
    numpy_number,
)


class _Mapping:
    """Stands for kinds of dict, such as a configuration; makes one without their methods."""

    def __new__(cls, *arguments: object) -> OrderedDict[object, object]:  # type: ignore[misc]
        given = [argument for argument in arguments if isinstance(argument, Mapping)]
        return OrderedDict(given[0] if given else {})


class _Text:
    """Stands for kinds of text, and for paths."""

    def __new__(cls, *parts: object) -> str:  # type: ignore[misc]
        return str(PurePosixPath(*map(str, parts))) if len(parts) > 1 else "".join(map(str, parts))


def _items(*arguments: object) -> list[object]:
    """Stands for collections.deque."""
    return list(arguments[0]) if arguments and isinstance(arguments[0], list | tuple) else []


def _attribute(owner: object, name: object, *_: object) -> str:
    """Stands for getattr, by which members of enumerations and methods are named."""
    return str(name)


def _npu_tensor(
    storage: torch.storage.TypedStorage,
    storage_offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
    backward_hooks: OrderedDict,
    npu_format: object,
) -> torch.Tensor:
    """Return a tensor that torch_npu has saved; the numbers are in the usual order.

    torch_npu brings a tensor to the host, and so to the usual order, before it writes it; the
    format is the one to which it is cast again on an NPU (torch_npu/utils/storage.py of 1.8, 1.11,
    2.0, 2.7.1 and 2.8.0).
    """
    return torch._utils._rebuild_tensor_v2(
        storage, storage_offset, size, stride, requires_grad, backward_hooks
    )


_STAND_INS: Mapping[Callable[..., object], str] = {
    Inert: """
        argparse.Namespace types.SimpleNamespace
        builtins.bool builtins.dict builtins.float builtins.int builtins.list builtins.object
        builtins.range builtins.slice builtins.str builtins.tuple
        datetime.date datetime.datetime datetime.time datetime.timedelta datetime.timezone
        lightning.pytorch.callbacks.early_stopping.EarlyStopping
        lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint
        lightning.pytorch.cli._InstantiatorFn
        ml_collections.config_dict.config_dict.ConfigDict
        mmcv.utils.config.Config mmengine.config.config.Config
        mmengine.logging.history_buffer.HistoryBuffer
        numpy.bool numpy.bool_ numpy.float16 numpy.float32 numpy.float64 numpy.int32 numpy.int64
        numpy.str_ numpy.uint8
        omegaconf.base.ContainerMetadata omegaconf.base.Metadata omegaconf.dictconfig.DictConfig
        omegaconf.listconfig.ListConfig omegaconf.nodes.AnyNode omegaconf.nodes.BooleanNode
        omegaconf.nodes.FloatNode omegaconf.nodes.IntegerNode omegaconf.nodes.StringNode
        pytorch_lightning.callbacks.early_stopping.EarlyStopping
        pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint
        sklearn.preprocessing._label.LabelEncoder
        timm.models._pretrained.PretrainedCfg
        torch_npu.npu._format.Format
        torchvision.transforms.functional.InterpolationMode
        typing.Any uuid.UUID
        """,
    _Mapping: """
        addict.addict.Dict attrdict.dictionary.AttrDict box.box.Box collections.defaultdict
        detectron2.config.config.CfgNode easydict.EasyDict fvcore.common.config.CfgNode
        lightning.fabric.utilities.data.AttributeDict
        lightning.pytorch.utilities.parsing.AttributeDict
        lightning_fabric.utilities.data.AttributeDict
        mmcv.utils.config.ConfigDict mmengine.config.config.ConfigDict munch.Munch
        pytorch_lightning.utilities.parsing.AttributeDict yacs.config.CfgNode
        """,
    _Text: """
        pathlib.Path pathlib.PosixPath pathlib.PurePath pathlib.PurePosixPath
        pathlib.PureWindowsPath pathlib.WindowsPath pathlib._local.Path pathlib._local.PosixPath
        pathlib._local.PurePath pathlib._local.PurePosixPath pathlib._local.PureWindowsPath
        pathlib._local.WindowsPath torch.torch_version.TorchVersion
        """,
    frozenset: "builtins.frozenset",
    _items: "collections.deque",
    _attribute: "builtins.getattr",
    NumpyType: "numpy.dtype",
    NumpyArray: "numpy.ndarray",
    numpy_array: "numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct",
    numpy_number: "numpy.core.multiarray.scalar numpy._core.multiarray.scalar",
    _npu_tensor: "torch_npu.utils.storage._rebuild_npu_tensor",
}
# As torch.serialization.safe_globals takes them.
STAND_INS: list[Callable | tuple[Callable, str]] = [
    (made, name) for made, names in _STAND_INS.items() for name in names.split()
]
