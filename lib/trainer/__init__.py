"""One training run, from its configuration to its result: what tools/train.py does.

`starting`: what it starts from. `parts`: everything it computes with. `reporter`: what it says and
writes beside its weights. `run`: the epochs.
"""

from lib.trainer.run import train
from lib.trainer.starting import TrainRequest, check_request, fetch_pretrained

__all__ = ["TrainRequest", "check_request", "fetch_pretrained", "train"]
