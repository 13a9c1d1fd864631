"""The configuration: `defaults` has the keys, `check` what they may be, `load` reads yaml files.

`unused` tells what is set without effect.
"""

from lib.config.check import CHOICES, value_at
from lib.config.defaults import DEFAULTS, OFFICIAL_NAME, default_config
from lib.config.load import default_run_folder, load_config
from lib.config.overrides import repeats
from lib.recipe import eval_recipe
from lib.config.unused import unused_settings
from lib.config.yaml_text import read_yaml

__all__ = [
    "CHOICES",
    "DEFAULTS",
    "OFFICIAL_NAME",
    "default_config",
    "default_run_folder",
    "eval_recipe",
    "load_config",
    "read_yaml",
    "repeats",
    "unused_settings",
    "value_at",
]
