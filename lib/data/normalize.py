"""The last step of the preprocessing, on whatever device the network is on."""

import torch
from torch import Tensor, nn

from lib.config.recipe import USUAL, Recipe


class Normalize(nn.Module):
    """uint8 N x H x W x 3 to float32 N x 3 x H x W: (images / 255 - mean) / std.

    Pictures travel to the device as bytes, a quarter of the traffic. On the CPU the result is
    bit-equal to `lib.data.transforms.normalize`.

    Args:
        recipe: whose mean and standard deviation are taken.
        channels_last: leave the memory in N x H x W x 3 order (a channels_last tensor, no copy
            of the bytes). False gives a contiguous tensor, the only kind that every device takes.
    """

    # 255 is a tensor too: CUDA turns a division by a Python number into a multiplication by its
    # reciprocal, which differs in the last bit.
    maximum: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, recipe: Recipe = USUAL, *, channels_last: bool = False) -> None:
        super().__init__()
        self.channels_last = channels_last
        # Means and deviations that a recipe leaves out change nothing, to the bit.
        mean, std = recipe.mean or (0.0,) * 3, recipe.std or (1.0,) * 3
        constants = {"maximum": (255.0,), "mean": mean, "std": std}
        for name, values in constants.items():
            buffer = torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        planes = images.permute(0, 3, 1, 2)
        if not self.channels_last:
            planes = planes.contiguous()
        return (planes.to(torch.float32) / self.maximum - self.mean) / self.std
