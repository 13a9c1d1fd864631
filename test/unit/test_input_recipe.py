"""The input recipe: what files keep of it, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms as reference

from lib.config.recipe import Recipe
from lib.data.transforms import eval_pixels, normalize

OTHERS = Recipe(
    resize=40, crop=32, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.5)
)


@pytest.mark.parametrize("recipe", [Recipe(), Recipe.for_crop(96), OTHERS])
def test_a_recipe_survives_json(recipe):
    text = json.dumps(recipe.as_json())
    assert Recipe.from_json(json.loads(text), where="file") == recipe


def test_what_a_file_leaves_out_is_the_usual():
    assert Recipe.from_json({"crop": 64}, where="file") == Recipe.for_crop(64)


def test_differences_name_each_field_with_both_values():
    assert OTHERS.differences(Recipe.for_crop(32)) == (
        "resize 40 for 36",
        "interpolation bicubic for bilinear",
        "mean 0.5 0.5 0.5 for 0.485 0.456 0.406",
        "std 0.5 0.25 0.5 for 0.229 0.224 0.225",
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (5, "it is 5, and a mapping is needed"),
        ({"resize": None}, "resize is None, and a whole number from 1 to 65536 is needed"),
        ({"resize": [72]}, r"resize is \[72\]"),
        ({"resize": True}, "resize is True"),
        ({"crop": 64.5}, "crop is 64.5"),
        ({"crop": 10**12}, "crop is 1000000000000"),
        ({"mean": [0.5]}, r"mean is \[0.5\], and a list of 3 is needed"),
        ({"mean": [0.5, float("nan"), 0.5]}, r"mean\[1\] is nan"),
        ({"std": [0.5, 0, 0.5]}, "std is"),
        ({"interpolation": "\x1b[2J"}, '"bilinear" or "bicubic"'),
        ({"interpolation": ["bilinear"]}, '"bilinear" or "bicubic"'),
        ({"fit": "squash"}, "knows no 'fit'"),
    ],
)
def test_what_is_no_recipe_is_refused_by_name(content, said):
    """Fault R6: wrong types, those that Python takes for numbers among them."""
    with pytest.raises(ValueError, match=said) as caught:
        Recipe.from_json(content, where="m.onnx")
    assert str(caught.value).startswith("m.onnx: ")
    assert str(caught.value).isprintable()


def test_other_means_and_interpolations_are_torchvisions():
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    expected = reference.Compose(
        [
            reference.Resize(40, reference.InterpolationMode.BICUBIC),
            reference.CenterCrop(32),
            reference.ToTensor(),
            reference.Normalize(OTHERS.mean, OTHERS.std),
        ]
    )(image)
    assert np.array_equal(normalize(eval_pixels(image, OTHERS), OTHERS), expected.numpy())
