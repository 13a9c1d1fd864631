"""Print parameters, multiply-adds and activations of the networks, beside the published figures.

Without options all nine published networks are counted, which takes about half a minute.
"""

import argparse
from pathlib import Path

import _init_paths  # noqa: F401

from lib.runtime.cli import ArgumentParser, run_script, say


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = ArgumentParser(__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--arch", metavar="NAME", help="one network only, such as hrnet_w18")
    which.add_argument("--cfg", type=Path, metavar="YAML", help="the network of this experiment")
    parser.add_argument(
        "--image_size",
        type=int,
        default=0,
        metavar="PIXELS",
        help="side of the square input; 0: MODEL.IMAGE_SIZE of --cfg, and 224 without --cfg",
    )
    return parser.parse_args()


def main() -> int:
    """Count the networks that the command line asks for."""
    arguments = parse_arguments()
    from lib.config.load import load_config
    from lib.models.build import network_spec
    from lib.models.complexity import (
        PUBLISHED_IMAGE_SIZE,
        PUBLISHED_NUM_CLASSES,
        info_table,
        measure_model,
    )
    from lib.models.guess import arch_name
    from lib.models.hrnet import ARCHS, build_hrnet, find_spec

    image_size, num_classes = PUBLISHED_IMAGE_SIZE, PUBLISHED_NUM_CLASSES
    specs = dict(ARCHS)
    if arguments.arch:
        specs = {arguments.arch: find_spec(arguments.arch)}
    elif arguments.cfg:
        config = load_config(arguments.cfg)
        spec = network_spec(config)
        # An official yaml spells out a network that most often has a name of its own.
        specs = {arch_name(spec) or config.MODEL.NAME: spec}
        image_size = config.MODEL.IMAGE_SIZE[0]
        num_classes = config.MODEL.NUM_CLASSES or num_classes
    image_size = arguments.image_size or image_size
    infos = [
        measure_model(name, build_hrnet(spec, num_classes), image_size=image_size)
        for name, spec in specs.items()
    ]
    published = (image_size, num_classes) == (PUBLISHED_IMAGE_SIZE, PUBLISHED_NUM_CLASSES)
    say(*info_table(infos, image_size=image_size, published=published).split("\n"))
    return 0


if __name__ == "__main__":
    run_script(main)
