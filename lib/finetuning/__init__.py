"""What fine-tuning finds out by itself: the parts of a folder, the network of weights, the data."""

from lib.finetuning.layout import FolderSettings, folder_settings
from lib.finetuning.network import network_settings, resumed_settings
from lib.finetuning.survey import survey

__all__ = [
    "FolderSettings",
    "folder_settings",
    "network_settings",
    "resumed_settings",
    "survey",
]
