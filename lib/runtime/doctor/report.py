"""The doctor's report, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from lib.runtime.doctor.facts import Facts
from lib.runtime.doctor.probe import Probe
from lib.runtime.doctor.verdicts import GIB, PROBLEM, WARNING, Finding

_APEX_WORDS = {
    "absent": "not installed (not needed)",
    "ascend": "Ascend's",
    "nvidia": "NVIDIA's, or one built from source",
    "unrelated": "another package of that name",
}


def as_text(facts: Facts, probe: Probe, findings: Sequence[Finding]) -> str:
    """Return aligned `key: value` lines, one line a finding, and the verdict as the last line."""
    values = fact_lines(facts, probe)
    width = max(map(len, values)) + 2
    lines = [f"{key + ':':{width}}{value}" for key, value in values.items()]
    for finding in findings:
        fix = f"; fix: {finding.fix}" if finding.fix else ""
        lines.append(f"{finding.level}: {finding.text}{fix}")
    return "\n".join([*lines, f"verdict: {verdict(probe, findings)}"])


def as_json(facts: Facts, probe: Probe, findings: Sequence[Finding]) -> bytes:
    """Return the same as JSON: facts (strings), findings, verdict, can_train."""
    report = {
        "facts": fact_lines(facts, probe),
        "findings": [asdict(finding) for finding in findings],
        "verdict": verdict(probe, findings),
        "can_train": exit_code(findings) == 0,
    }
    return (json.dumps(report, indent=2) + "\n").encode()


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 where training cannot start, else 0."""
    return int(any(finding.level == PROBLEM for finding in findings))


def verdict(probe: Probe, findings: Sequence[Finding]) -> str:
    """Return the last line's words."""
    levels = [finding.level for finding in findings]
    warnings = _count(levels.count(WARNING), WARNING)
    if exit_code(findings):
        problems = _count(levels.count(PROBLEM), PROBLEM)
        return f"training cannot start: {problems}, {warnings}"
    return f"training can start on {probe.kind}: {warnings}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def fact_lines(facts: Facts, probe: Probe) -> dict[str, str]:
    """Return what was found, as {key: value} in the order of the report."""
    drivers = (f"{kind} {version}" for kind, version in facts.drivers.items())
    return {
        "device": _device(probe),
        "cards in /dev": ", ".join(f"{n} {kind}" for kind, n in facts.num_cards.items()),
        "driver": ", ".join(drivers) or "none found",
        "CANN": _cann(facts),
        "torch": facts.versions.get("torch", "not installed"),
        "torch_npu": facts.versions.get("torch_npu", "not installed"),
        "torchvision": facts.versions.get(
            "torchvision", "not installed (AUG.AUTO, AUG.ERASE and tests need it)"
        ),
        "Python": ".".join(map(str, facts.python)),
        "NumPy": facts.versions.get("numpy", "not installed"),
        "apex": " ".join(filter(None, (facts.versions.get("apex"), _APEX_WORDS[facts.apex]))),
        "memory": f"{_gib(facts.memory)}, {_gib(facts.memory_free)} of it available",
        "cores": f"{facts.num_cores} ({facts.machine})",
        "/dev/shm": f"{_gib(facts.shared_memory_free)} free",
        "disk": f"{_gib(facts.disk_free)} free in {facts.folder}",
    }


def _device(probe: Probe) -> str:
    if not probe.kind:
        return "unknown, since torch did not say"
    if probe.kind == "cpu":
        return probe.names[0]
    return f"{len(probe.names)} x {probe.kind}: {', '.join(probe.names)}"


def _cann(facts: Facts) -> str:
    cann = facts.cann
    if cann is None:
        return "none found"
    if not cann.exists:
        return f"{cann.home} is not there, though the environment names it"
    state = "set up" if cann.sourced else "not set up in this shell"
    return f"{cann.version or 'unknown version'} in {cann.home}, {state}"


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / GIB:.1f} GiB"
