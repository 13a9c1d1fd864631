"""Data sets, loaders and their book-keeping; the public names of the sub-modules in one place.

`lists`: which pictures there are; `packed`: those in tar shards; `sources`: which of
the two a data path holds; `splitting`: validation pictures set aside. `samplers`: in which order
they come. `loading`: from files to batches. `decoding`: from a file to a training picture.
`augmenting`: what else is done to it. `bad_images`: what happens to files that can't be decoded;
`watching`: what happens when loading processes fail.
`normalize`: the last step of the preprocessing, on the device.
"""

from lib.data.augmenting import Extras
from lib.data.bad_images import BadImage, BadImageLedger, lost_classes_remark
from lib.data.decoding import choose_decoder, has_fast_decoder
from lib.data.lists import ImageList
from lib.data.loading import Batch, LoaderOptions, eval_loader, num_workers, train_loader
from lib.data.normalize import Normalize
from lib.data.samplers import EvalBatches, TrainBatches
from lib.data.sources import read_train_val, read_val
from lib.data.splitting import SetAside, names_below
from lib.data.watching import LoadingFailed, WatchedLoader

__all__ = [
    "BadImage",
    "BadImageLedger",
    "Batch",
    "EvalBatches",
    "Extras",
    "ImageList",
    "LoaderOptions",
    "LoadingFailed",
    "Normalize",
    "SetAside",
    "TrainBatches",
    "WatchedLoader",
    "choose_decoder",
    "eval_loader",
    "has_fast_decoder",
    "lost_classes_remark",
    "names_below",
    "num_workers",
    "read_train_val",
    "read_val",
    "train_loader",
]
