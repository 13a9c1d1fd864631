"""The published weights that have a name here: data alone. All are of ImageNet-1k, 1000 classes.

A name is `<network>.<source>`; the network's name alone stands for the weights that timm gives for
it. What a source doesn't publish (a hash, say) is left empty.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lib.config.recipe import Recipe

TIMM, OFFICIAL, MMPRETRAIN, PADDLE = "timm", "HRNet", "mmpretrain", "PaddleClas"


@dataclass(frozen=True)
class Entry:
    """Weights that somebody has published.

    The accuracies (percent, ImageNet's validation set) are the publisher's, and hold with the
    publisher's preprocessing: the whole picture resized so that a centre crop of
    `image_size` is `crop_share` of its short side.
    """

    name: str
    arch: str  # a row of ARCHS in lib/models/hrnet.py
    source: str  # the project
    url: str
    top1: float
    top5: float | None
    licence: str
    sha256: str = ""  # whole, or its first digits
    crop_share: float = 0.875
    interpolation: str = "bilinear"
    image_size: int = 224

    @property
    def recipe(self) -> Recipe:
        """The publisher's preprocessing; mean and deviation are ImageNet's in all of them."""
        size = self.image_size
        resize = int(size / self.crop_share)
        return Recipe(resize=resize, crop=size, interpolation=self.interpolation)

    @property
    def preprocessing(self) -> str:
        """How the publisher prepares pictures, in words."""
        size = self.image_size
        return f"{size} x {size}, {100 * self.crop_share:g}% crop, {self.interpolation}"


# Names, licences, crops and interpolation: timm 1.0.31, default_cfgs in timm/models/hrnet.py; files
# lie on the Hugging Face hub as timm's loader asks for them. Accuracies: its
# results/results-imagenet.csv at 224 x 224. Hash: the file's page on the hub; that of the others
# comes with the download, see download.py.
_TIMM_URL = "https://huggingface.co/timm/{}/resolve/main/model.safetensors"
_TIMM = (
    # arch, suffix of the name, name on the hub, top-1, top-5
    ("hrnet_w18_small_v1", "", "hrnet_w18_small.gluon_in1k", 73.934, 91.178),
    ("hrnet_w18_small_v1", "_ms", "hrnet_w18_small.ms_in1k", 72.340, 90.688),
    ("hrnet_w18_small_v2", "", "hrnet_w18_small_v2.gluon_in1k", 78.202, 93.906),
    ("hrnet_w18_small_v2", "_ms", "hrnet_w18_small_v2.ms_in1k", 75.094, 92.414),
    ("hrnet_w18", "", "hrnet_w18.ms_aug_in1k", 78.110, 94.062),
    ("hrnet_w18", "_ms", "hrnet_w18.ms_in1k", 76.770, 93.448),
    ("hrnet_w18", "_ssld", "hrnet_w18_ssld.paddle_in1k", 81.114, 95.638),
    ("hrnet_w30", "", "hrnet_w30.ms_in1k", 78.202, 94.220),
    ("hrnet_w32", "", "hrnet_w32.ms_in1k", 78.452, 94.184),
    ("hrnet_w40", "", "hrnet_w40.ms_in1k", 78.928, 94.480),
    ("hrnet_w44", "", "hrnet_w44.ms_in1k", 78.890, 94.376),
    ("hrnet_w48", "", "hrnet_w48.ms_in1k", 79.328, 94.516),
    ("hrnet_w48", "_ssld", "hrnet_w48_ssld.paddle_in1k", 83.656, 96.848),
    ("hrnet_w64", "", "hrnet_w64.ms_in1k", 79.458, 94.646),
)
_TIMM_CROPS = MappingProxyType({"ms_aug_in1k": 0.95, "paddle_in1k": 0.95})
_TIMM_HASHES = MappingProxyType(
    {"hrnet_w18.ms_aug_in1k": "f9e3c451448c037d4dd549c96f3013d2926b492f69f27c74bbcc909e053e677c"}
)

# Addresses and accuracies: 'Newly added checkpoints' in the README of
# HRNet/HRNet-Image-Classification, whose LICENSE is MIT's. It gives top-1 errors only, no hashes.
_RELEASE_URL = (
    "https://github.com/HRNet/HRNet-Image-Classification/releases/download/PretrainedWeights/{}"
)
_RELEASED = (
    ("hrnet_w18", "_cutmix", "HRNet_W18_C_cosinelr_cutmix_300epoch.pth.tar", 77.9),
    ("hrnet_w18", "_ssld", "HRNet_W18_C_ssld_pretrained.pth", 81.2),
    ("hrnet_w48", "_cutmix", "HRNet_W48_C_cosinelr_cutmix_300epoch.pth.tar", 81.1),
    ("hrnet_w48", "_ssld", "HRNet_W48_C_ssld_pretrained.pth", 83.6),
)

# The authors' own files lie where no program can fetch them. These addresses, with the first eight
# digits of each sha256 in the file's name, are those of timm 0.6.13 (timm/models/hrnet.py);
# accuracies: README of HRNet/HRNet-Image-Classification.
_MIRROR_URL = (
    "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-hrnet/{}-{}.pth"
)
_MIRRORED = (
    ("hrnet_w18_small_v1", "hrnet_w18_small_v1", "f460c6bc", 72.3, 90.7),
    ("hrnet_w18_small_v2", "hrnet_w18_small_v2", "4c50a8cb", 75.1, 92.4),
    ("hrnet_w18", "hrnetv2_w18", "8cb57bb9", 76.8, 93.4),
    ("hrnet_w30", "hrnetv2_w30", "8d7f8dab", 78.2, 94.2),
    ("hrnet_w32", "hrnetv2_w32", "90d8c5fb", 78.5, 94.2),
    ("hrnet_w40", "hrnetv2_w40", "7cd397a4", 78.9, 94.5),
    ("hrnet_w44", "hrnetv2_w44", "c9ac8c18", 78.9, 94.4),
    ("hrnet_w48", "hrnetv2_w48", "abd2e6ab", 79.3, 94.5),
    ("hrnet_w64", "hrnetv2_w64", "b47cc881", 79.5, 94.6),
)

# All facts: mmpretrain 1.2.0, configs/hrnet/metafile.yml and hrnet-w*_4xb32_in1k.py. The last
# eight digits of a file's name are the first of its sha256. Licence: that of the package.
_MMPRETRAIN_URL = (
    "https://download.openmmlab.com/mmclassification/v0/hrnet/"
    "hrnet-{}_3rdparty_8xb32{}_in1k_20220120-{}.pth"
)
_MMPRETRAIN = (
    ("w18", "", "0c10b180", 76.75, 93.44),
    ("w18", "ssld", "455f69ea", 81.06, 95.70),
    ("w30", "", "8aa3832f", 78.19, 94.22),
    ("w32", "", "c394f1ab", 78.44, 94.19),
    ("w40", "", "9a2dbfc5", 78.94, 94.47),
    ("w44", "", "35d07f73", 78.88, 94.37),
    ("w48", "", "e555ef50", 79.32, 94.52),
    ("w48", "ssld", "d0459c38", 83.63, 96.79),
    ("w64", "", "19126642", 79.46, 94.65),
)

# Addresses: paddleclas 2.6.0, MODEL_URLS in ppcls/arch/backbone/legendary_models/hrnet.py, and
# ppcls/utils/save_load.py for the ssld ones; preprocessing: its deploy/configs/inference_cls.yaml.
# Accuracies: the models' table in PaddleClas's documents (ImageNet model library, HRNet series).
# Licence: that of the package. No hashes.
_PADDLE_URL = (
    "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/legendary_models/"
    "HRNet_{}_C{}_pretrained.pdparams"
)
_PADDLE = (
    ("w18", "", 76.92, 93.39),
    ("w18", "ssld", 81.162, 95.804),
    ("w30", "", 78.04, 94.02),
    ("w32", "", 78.28, 94.24),
    ("w40", "", 78.77, 94.47),
    ("w44", "", 79.00, 94.51),
    ("w48", "", 78.95, 94.42),
    ("w48", "ssld", 83.63, 96.82),
    ("w64", "", 79.30, 94.61),
)


def _timm() -> Iterator[Entry]:
    for arch, suffix, name, top1, top5 in _TIMM:
        tag = name.partition(".")[2]
        is_gluon = tag == "gluon_in1k"
        yield Entry(
            f"{arch}.timm{suffix}",
            arch,
            TIMM,
            _TIMM_URL.format(name),
            top1,
            top5,
            "apache-2.0" if is_gluon else "mit",
            sha256=_TIMM_HASHES.get(name, ""),
            crop_share=_TIMM_CROPS.get(tag, 0.875),
            interpolation="bicubic" if is_gluon else "bilinear",
        )


def _official() -> Iterator[Entry]:
    for arch, file, digits, top1, top5 in _MIRRORED:
        url = _MIRROR_URL.format(file, digits)
        yield Entry(f"{arch}.official", arch, OFFICIAL, url, top1, top5, "mit", digits)
    for arch, suffix, file, top1 in _RELEASED:
        url = _RELEASE_URL.format(file)
        yield Entry(f"{arch}.official{suffix}", arch, OFFICIAL, url, top1, None, "mit")


def _mmpretrain() -> Iterator[Entry]:
    for width, kind, digits, top1, top5 in _MMPRETRAIN:
        name, arch = f"hrnet_{width}.mmpretrain{kind and '_' + kind}", f"hrnet_{width}"
        url = _MMPRETRAIN_URL.format(width, kind and f"-{kind}", digits)
        yield Entry(name, arch, MMPRETRAIN, url, top1, top5, "apache-2.0", digits)


def _paddle() -> Iterator[Entry]:
    for width, kind, top1, top5 in _PADDLE:
        name, arch = f"hrnet_{width}.paddle{kind and '_' + kind}", f"hrnet_{width}"
        url = _PADDLE_URL.format(width.upper(), kind and f"_{kind}")
        yield Entry(name, arch, PADDLE, url, top1, top5, "apache-2.0")


_ARCHS = tuple(dict.fromkeys(arch for arch, *_ in _TIMM))
ENTRIES: Mapping[str, Entry] = MappingProxyType(
    {
        entry.name: entry
        for entry in sorted(
            (*_timm(), *_official(), *_mmpretrain(), *_paddle()),
            key=lambda entry: _ARCHS.index(entry.arch),
        )
    }
)
# A network's name alone: what timm gives for it.
DEFAULTS: Mapping[str, str] = MappingProxyType({arch: f"{arch}.timm" for arch in _ARCHS})


def lookup(name: str) -> Entry | None:
    """Return the weights of a name: one of ENTRIES, of DEFAULTS, or timm's own; None: unknown.

    timm's own is `hrnet_w18.ms_aug_in1k` or `timm/hrnet_w18.ms_aug_in1k`, and `hrnet_w18_small`
    for its first of that network.
    """
    found = ENTRIES.get(DEFAULTS.get(name, name))
    if found is None:
        own = name.removeprefix("timm/")
        beginning = _TIMM_URL.partition("{")[0] + own + ("/" if "." in own else ".")
        found = next((entry for entry in ENTRIES.values() if entry.url.startswith(beginning)), None)
    return found


def nearest(name: str) -> list[str]:
    """Return the three known names that are most like `name`."""
    return difflib.get_close_matches(name, [*DEFAULTS, *ENTRIES], n=3, cutoff=0.0)
