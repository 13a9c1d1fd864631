"""Writing packed data sets; `lib.data.packed` reads them.

`tar`: a shard, byte for byte. `pictures`: from a picture to what a shard holds of it. `record`:
what is finished, for a restart. `options`: what is asked for. `run`: the whole work. `verify`:
whether files are still the same.
"""

from lib.packing.options import PackOptions
from lib.packing.run import PackReport, pack
from lib.packing.verify import damaged_files

__all__ = ["PackOptions", "PackReport", "damaged_files", "pack"]
