"""Say what this machine has for training, what does not fit, and the line that mends it.

The exit code is 0 where training can start (warnings do not count), 1 where it cannot.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import _init_paths

from lib.runtime.cli import ArgumentParser, run_script, say
from lib.runtime.doctor.facts import gather
from lib.runtime.doctor.probe import run_probe
from lib.runtime.doctor.report import as_json, as_text, exit_code
from lib.runtime.doctor.verdicts import judge
from lib.runtime.environment import read_cann_variables, read_environment
from lib.runtime.files import check_outputs, write_atomically


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "npu", "cuda", "cpu"),
        help="what training would be asked for; auto: an npu, else cuda, else the cpu",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    return parser.parse_args()


def main() -> int:
    """Look, judge, print; return the exit code."""
    arguments = parse_arguments()
    environment_error = ""
    try:
        read_environment()
    except ValueError as error:
        environment_error = str(error)
    requirements = Path(_init_paths.ROOT) / "requirements.txt"
    check_outputs({"--json": arguments.json}, (requirements,))
    facts = gather(
        read_cann_variables(),
        requirements=requirements,
        folder=Path(),
        environment_error=environment_error,
    )
    probe = run_probe(arguments.device)
    findings = judge(facts, probe)
    say(*as_text(facts, probe, findings).split("\n"))
    if arguments.json:
        write_atomically(as_json(facts, probe, findings), arguments.json)
    return exit_code(findings)


if __name__ == "__main__":
    run_script(main)
