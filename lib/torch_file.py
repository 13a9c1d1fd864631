"""Files of torch.save and of safetensors, read without running what they may hold."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

import torch

# What torch.load raises for damaged files, as tried with flipped and missing bytes.
_DAMAGES = (RuntimeError, EOFError, LookupError, TypeError, struct.error, zipfile.BadZipFile)


def read_torch_file(path: Path) -> object:
    """Return what a file holds, its tensors on the CPU.

    Raises FileNotFoundError, and ValueError for a damaged file or one of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such weight file: {path}")
    if path.suffix == ".safetensors":
        import safetensors.torch  # the only reader of this form, and needed for no other

        try:
            return safetensors.torch.load_file(path)
        except Exception as error:  # its errors have no common public base
            raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())[:160]
        raise ValueError(
            f"{path} holds more than plain weights and is not opened, since that could run foreign "
            f"code, or is damaged ({reason}); save its state_dict alone with torch.save"
        ) from None
    except _DAMAGES as error:
        raise ValueError(
            f"{path} is damaged or no weight file: {' '.join(str(error).split())[:160]}"
        ) from None
