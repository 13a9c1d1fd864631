"""Writing packed data sets; `lib.data.packed` reads them.

`tar`: a shard, byte for byte. `pictures`: from a picture to what a shard holds of it. `record`:
what is finished, for a restart. `run`: the whole work. `verify`: whether files are still the same.
"""

from lib.packing.run import PackOptions, PackReport, pack
from lib.packing.verify import damaged_files

__all__ = ["PackOptions", "PackReport", "damaged_files", "pack"]
