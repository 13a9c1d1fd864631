"""Published weights by name: what there is, where it lies, the cache, and foreign names."""

from lib.weights.find import cached, find_weights, local_weights, published
from lib.weights.forms import weight_suffix
from lib.weights.names import converted
from lib.weights.pdparams import read_pdparams
from lib.weights.registry import DEFAULTS, ENTRIES, Entry, lookup

__all__ = [
    "DEFAULTS",
    "ENTRIES",
    "Entry",
    "cached",
    "converted",
    "find_weights",
    "local_weights",
    "lookup",
    "published",
    "read_pdparams",
    "weight_suffix",
]
