"""The configuration: `defaults` has the keys, `check` what they may be, `load` reads yaml files."""

from lib.config.check import value_at
from lib.config.defaults import DEFAULTS, OFFICIAL_NAME
from lib.config.load import default_run_folder, load_config

__all__ = ["DEFAULTS", "OFFICIAL_NAME", "default_run_folder", "load_config", "value_at"]
