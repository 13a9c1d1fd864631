"""The rules of the house that a program can check: rooms, names, sizes, imports."""

import ast
import graphlib
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib.config.keys import KEYS

REPO = Path(__file__).resolve().parents[2]
LIB = sorted((REPO / "lib").rglob("*.py"))
TOOLS = sorted((REPO / "tools").glob("*.py"))
SOURCES = [*LIB, *TOOLS, *sorted(REPO.glob("*.py"))]

# A room imports from lower floors alone; two rooms of one floor don't know each other.
FLOORS = {
    "benchmark": 6,
    "training": 5,
    "ascend": 5,
    "evaluation": 4,
    "offline": 4,
    "report": 3,
    "export": 3,
    "models": 2,
    "metrics": 2,
    "data": 1,
    "config": 0,
    "runtime": -1,
}
# Rooms and modules that need no torch: what runs before it is there, or where it never is.
WITHOUT_TORCH = (
    "ascend",
    "config",
    "export.atc_rules",
    "export.onnx_graph",
    "export.onnx_metadata",
    "export.quantize",
    "metrics.confusion",
    "data.class_file",
    "data.label_file",
    "data.packed.storage",
    "data.picture_files",
    "data.rgb",
    "data.transforms",
    "models.weights.find",
    "models.weights.pdparams",
    "offline",
    "report.launcher_report",
    "runtime.arrays",
    "runtime.checked",
    "runtime.cli",
    "runtime.csv_text",
    "runtime.doctor",
    "runtime.environment",
    "runtime.files",
    "runtime.launch",
    "runtime.pool",
    "runtime.rendezvous",
    "runtime.run_folder",
    "runtime.signals",
    "runtime.text",
)
MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60
MODULES = {".".join(path.relative_to(REPO).with_suffix("").parts) for path in LIB}
each_source = pytest.mark.parametrize(
    "path", SOURCES, ids=lambda path: path.relative_to(REPO).as_posix()
)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def dotted(path: Path) -> str:
    """The name under which a file of the library is imported."""
    return ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """`data` for `lib.data.packed.tar`; '' outside the library."""
    return module.split(".")[1] if module.startswith("lib.") else ""


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that a file imports anywhere, `from lib.data import rgb` as `lib.data.rgb`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in names if name in MODULES]
            yield from modules
            if len(modules) < len(names):
                yield node.module


def chain(node: ast.expr) -> str:
    """`os.environ` for that expression; '' where it is anything but names and dots."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := chain(node.value)):
        return f"{head}.{node.attr}"
    return ""


def test_the_library_is_these_rooms_and_nothing_loose():
    entries = {path.name for path in (REPO / "lib").iterdir()} - {"__pycache__"}
    assert entries == {*FLOORS, "__init__.py"}


@pytest.mark.parametrize("path", LIB, ids=dotted)
def test_imports_point_down(path):
    own = room_of(dotted(path))
    for module in imported(tree_of(path)):
        other = room_of(module)
        assert other in ("", own) or FLOORS[other] < FLOORS[own], f"imports {module}"


def test_a_room_is_entered_by_its_modules():
    """An `__init__` says what its room is for, and imports nothing."""
    for path in LIB:
        if path.name == "__init__.py":
            (statement,) = tree_of(path).body
            assert isinstance(statement, ast.Expr) and ast.get_docstring(tree_of(path)), path


def test_no_modules_import_each_other():
    """Imports at the top; one within a function may wait for what is slow or optional."""
    after: dict[str, set[str]] = {}
    for path in LIB:
        top = ast.Module([n for n in tree_of(path).body if not isinstance(n, ast.If)], [])
        tops = [n for n in ast.iter_child_nodes(top) if isinstance(n, ast.Import | ast.ImportFrom)]
        after[dotted(path)] = set(imported(ast.Module(tops, [])))
    graphlib.TopologicalSorter(
        {name: {other for other in others if other in after} for name, others in after.items()}
    ).prepare()  # raises CycleError


@pytest.mark.parametrize("path", LIB, ids=dotted)
def test_the_library_imports_no_script_and_reads_no_command_line(path):
    scripts = {script.stem for script in TOOLS}
    tree = tree_of(path)
    assert not {module.split(".")[0] for module in imported(tree)} & {"tools", *scripts}
    names = {chain(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "sys.argv" not in names


@each_source
def test_only_the_device_module_names_a_devices_own_interface(path):
    if path == REPO / "lib" / "runtime" / "device.py":
        return
    tree = tree_of(path)
    assert not {module.split(".")[0] for module in imported(tree)} & {"torch_npu", "apex"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("cuda", "npu", "is_cuda", "is_npu"), f"line {node.lineno}"
        elif isinstance(node, ast.Name):
            assert node.id != "torch_npu", f"line {node.lineno}"
        elif isinstance(node, ast.Call) and chain(node.func).endswith("import_module"):
            assert "torch_npu" not in ast.dump(node), f"line {node.lineno}"


@each_source
def test_only_the_environment_module_reads_the_environment(path):
    """Pitfall 24: one place reads it; the launcher alone sets something, for its children."""
    reading = {"os.environ", "os.environb", "os.getenv", "os.getenvb"}
    found = [
        node
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and chain(node) in reading
    ]
    allowed = {"lib/runtime/environment.py": 1, "lib/runtime/launch.py": 2}
    assert len(found) <= allowed.get(path.relative_to(REPO).as_posix(), 0)
    if path.name == "launch.py":
        assert "os.environ.setdefault(" in path.read_text()


@each_source
def test_lines_are_printed_by_what_makes_names_in_them_fit_to_be_shown(path):
    """Fault R2."""
    below_cli = ("lib/runtime/cli.py", "lib/report/launcher_report.py", "lib/runtime/rendezvous.py")
    if path.relative_to(REPO).as_posix() in below_cli:
        return
    called = [node.func for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    assert "print" not in map(chain, called), "use lib.cli.say, or Console"


@each_source
def test_no_text_is_run_as_code(path):
    """Pitfall 5."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            called = chain(node.func)
            assert called not in ("eval", "exec", "compile"), f"line {node.lineno}"
            assert called not in ("yaml.load", "yaml.unsafe_load"), f"line {node.lineno}"


@each_source
def test_files_and_functions_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= MAX_FUNCTION_LINES, node.name


_IMPORT_ALL = """
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)

sys.meta_path.insert(0, Blocked())
for name in NAMES:
    importlib.import_module(name)
forbidden = [name for name in ("matplotlib.pyplot", "torchvision", "timm") if name in sys.modules]
print("forbidden:", forbidden)
"""


def _import_in_a_new_process(names: list[str], blocked: tuple[str, ...], cwd: Path) -> str:
    code = f"BLOCKED, NAMES = {blocked!r}, {names!r}\n{_IMPORT_ALL}"
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(cwd.iterdir()) == []
    return done.stdout


def test_every_module_imports_without_torch_npu_and_apex(tmp_path):
    """Pitfall 11. Importing prints and writes nothing, and needs nothing that only tests have."""
    names = [dotted(path) for path in LIB]
    printed = _import_in_a_new_process(names, ("torch_npu", "apex"), tmp_path)
    assert printed == "forbidden: []\n"


def test_what_runs_before_torch_imports_without_it(tmp_path):
    """Pitfall 11: a torch that cannot be imported is explained, so it is imported late."""
    blocked = ("torch", "torchvision", "torch_npu", "apex")
    wanted = tuple(f"lib.{name}" for name in WITHOUT_TORCH)
    names = [
        name for name in map(dotted, LIB) if f"{name}.".startswith(tuple(f"{n}." for n in wanted))
    ]
    assert _import_in_a_new_process(names, blocked, tmp_path) == "forbidden: []\n"


def _sections(assignment: ast.Assign) -> dict[str, str]:
    """{'train': 'TRAIN'} for `train = config.TRAIN`, also within a tuple."""
    (target,) = assignment.targets[:1]
    targets = target.elts if isinstance(target, ast.Tuple) else [target]
    values = (
        assignment.value.elts if isinstance(assignment.value, ast.Tuple) else [assignment.value]
    )
    return {
        name.id: value.attr
        for name, value in zip(targets, values, strict=False)
        if isinstance(name, ast.Name) and isinstance(value, ast.Attribute) and value.attr.isupper()
    }


def keys_read(path: Path) -> set[str]:
    """The config keys that a file reads as attributes, TRAIN.LR and the like."""
    tree = tree_of(path)
    tree.body = [node for node in tree.body if getattr(node, "name", "") != "_check"]
    nodes = list(ast.walk(tree))
    sections: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            sections.update(_sections(node))
    keys = set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr.isupper():
            head, *parents = chain(node.value).split(".")
            inner = [name for name in (sections.get(head, ""), *parents) if name.isupper()]
            keys.add(".".join([*inner, node.attr]))
    return keys


def test_every_config_key_is_read_somewhere():
    """Pitfall 6: no dead keys."""
    read = set().union(*(keys_read(path) for path in SOURCES))
    known = {key.name for key in KEYS}
    assert known - read == set()


def _distribution(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _required(path: Path) -> set[str]:
    """The distributions that a requirements file lists itself."""
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    return {_distribution(line) for line in lines if line and not line.startswith("-")}


def _third_party_imports() -> dict[str, set[str]]:
    """{package: the distributions that may bring it}, for all that the sources import."""
    installed = importlib.metadata.packages_distributions()
    own = {"lib", *(path.stem for path in TOOLS)}
    modules = {module.split(".")[0] for path in SOURCES for module in imported(tree_of(path))}
    return {
        package: {_distribution(name) for name in installed.get(package, [package])}
        for package in modules - own - sys.stdlib_module_names
    }


@pytest.fixture
def requirements() -> dict[str, set[str]]:
    files = {path.name: _required(path) for path in sorted(REPO.glob("requirement*.txt"))}
    if "requirements.txt" not in files:
        pytest.skip("there is no requirements.txt yet")
    return files


def test_what_is_imported_is_required(requirements):
    """Pitfall 38."""
    listed = set().union(*requirements.values())
    missing = [name for name, brings in _third_party_imports().items() if not brings & listed]
    assert missing == []


def test_what_is_required_is_imported(requirements):
    """Pitfall 38."""
    imported_distributions = set().union(*_third_party_imports().values())
    assert requirements["requirements.txt"] - imported_distributions == set()
