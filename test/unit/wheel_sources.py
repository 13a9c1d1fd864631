"""Reads a wheel's Python sources without importing them, and what device.py asks of them."""

from __future__ import annotations

import ast
import inspect
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

Definition = ast.FunctionDef | ast.ClassDef | ast.expr


@dataclass(frozen=True)
class Use:
    """One name of torch_npu in our code: read, set (`config.x = ...`) or called."""

    name: str
    line: int
    is_set: bool = False
    call: ast.Call | None = None


@dataclass(frozen=True)
class Found:
    """A definition in the wheel, and the module it stands in."""

    module: str
    node: Definition


class Wheel:
    """The modules of one wheel; each file is read on the first request for it."""

    def __init__(self, path: Path, package: str):
        self._archive = zipfile.ZipFile(path)
        self._members = frozenset(self._archive.namelist())
        self._trees: dict[str, ast.Module] = {}
        self.package = package

    def text(self, suffix: str) -> str:
        """The one member whose name ends so."""
        (name,) = (member for member in self._members if member.endswith(suffix))
        return self._archive.read(name).decode()

    def tree(self, module: str) -> ast.Module | None:
        """A module's source; None where the wheel has none (a compiled module, another package)."""
        path = module.replace(".", "/")
        for member in (f"{path}/__init__.py", f"{path}.py"):
            if member in self._members and module not in self._trees:
                self._trees[module] = ast.parse(self._archive.read(member))
        return self._trees.get(module)

    @cached_property
    def start_up(self) -> dict[str, ast.Module]:
        """What `import torch_npu` runs at its top: the package and its _init folder."""
        folder = f"{self.package}/_init/"
        inner = sorted(m for m in self._members if m.startswith(folder) and m.endswith(".py"))
        modules = [member[:-3].replace("/", ".").removesuffix(".__init__") for member in inner]
        return {module: self.tree(module) for module in (self.package, *modules)}

    def find(self, name: str) -> Found | str | None:
        """What `torch_npu.npu.random.x` is: a definition, the name of a module, or None."""
        head, _, attribute = name.rpartition(".")
        if not head:
            return name if self.tree(name) else None
        parent = self.find(head)
        if isinstance(parent, str):
            return self._attribute(parent, attribute)
        return self.member(parent, attribute) if parent else None

    def _attribute(self, module: str, name: str) -> Found | str | None:
        tree = self.tree(module)
        found = None
        for node in tree.body if tree else ():
            found = self._bound(module, node, name) or found
        child = f"{module}.{name}"
        return found or (child if self.tree(child) and self._is_loaded(child) else None)

    def _bound(self, module: str, node: ast.stmt, name: str) -> Found | str | None:
        """What a statement at a module's top binds `name` to, if it does."""
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return Found(module, node)
        if isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets):
            return Found(module, node.value)
        if not isinstance(node, ast.ImportFrom):
            return None
        origin = self._origin(module, node)
        for alias in node.names:
            if alias.name == "*" and self._exports(origin, name):
                return self._attribute(origin, name)
            if (alias.asname or alias.name) == name:
                inner = f"{origin}.{alias.name}"
                # `from torch_npu import profiler` in torch_npu itself can only mean the module.
                found = self._attribute(origin, alias.name) if origin != module else None
                return found or (inner if self.tree(inner) else None)
        return None

    def _origin(self, module: str, node: ast.ImportFrom) -> str:
        """The module that an import names, relative or not."""
        if not node.level:
            return node.module
        is_package = f"{module.replace('.', '/')}/__init__.py" in self._members
        parts = module.split(".")
        parts = parts[: len(parts) - node.level + is_package]
        return ".".join([*parts, *filter(None, [node.module])])

    def _exports(self, module: str, name: str) -> bool:
        """Whether `from module import *` brings the name: __all__ decides where there is one."""
        for node in self.tree(module).body if self.tree(module) else ():
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return name in ast.literal_eval(node.value)
        return not name.startswith("_")

    def _is_loaded(self, module: str) -> bool:
        """Whether the start or its own package imports it: only then is it an attribute there."""
        parent = module.rpartition(".")[0]
        names = []
        for importer, tree in {**self.start_up, parent: self.tree(parent)}.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    names += [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    origin = self._origin(importer, node)
                    names += [f"{origin}.{alias.name}" for alias in node.names]
        return any(name == module or name.startswith(f"{module}.") for name in names)

    def member(self, parent: Found, name: str) -> Found | None:
        """A method or class variable; of an instance (`config = _Config()`) its class's too."""
        if isinstance(parent.node, ast.Call):
            made_by = ast.unparse(parent.node.func)
            kind = self.find(f"{parent.module}.{made_by}")
            return self.member(kind, name) if isinstance(kind, Found) else None
        if not isinstance(parent.node, ast.ClassDef):
            return None
        for node in parent.node.body:
            bound = self._bound(parent.module, node, name)
            if isinstance(bound, Found):
                return bound
        bases = (self.find(f"{parent.module}.{ast.unparse(base)}") for base in parent.node.bases)
        found = (self.member(base, name) for base in bases if isinstance(base, Found))
        return next(filter(None, found), None)

    def signature(self, found: Found) -> inspect.Signature:
        """How a function, or a class, is called."""
        node = found.node
        if isinstance(node, ast.ClassDef):
            node = self.member(found, "__init__").node
            return _signature(node.args, skip=1)
        return _signature(node.args, skip=0)


def _signature(arguments: ast.arguments, *, skip: int) -> inspect.Signature:
    kinds = inspect.Parameter
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [kinds.empty] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    parameters = [
        kinds(argument.arg, kinds.POSITIONAL_OR_KEYWORD, default=default)
        for argument, default in zip(positional, defaults, strict=True)
    ][skip:]
    if arguments.vararg:
        parameters.append(kinds(arguments.vararg.arg, kinds.VAR_POSITIONAL))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        default = kinds.empty if default is None else default
        parameters.append(kinds(argument.arg, kinds.KEYWORD_ONLY, default=default))
    if arguments.kwarg:
        parameters.append(kinds(arguments.kwarg.arg, kinds.VAR_KEYWORD))
    return inspect.Signature(parameters)


def uses(source: str, roots: dict[str, str]) -> list[Use]:
    """Every name that a module's functions reach through the calls in `roots`, {call: module}.

    Followed are chains (`_module(d).amp.x`) and local names (`npu = _module(d)`, also in a
    conditional expression). Raises ValueError where one escapes: passed on, returned, given to
    getattr.
    """
    found = []
    functions = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]
    for function in (f for f in functions if f.name not in roots):
        found += _uses_in(function, roots)
    return found


def _uses_in(function: ast.FunctionDef, roots: dict[str, str]) -> Iterator[Use]:
    nodes = list(ast.walk(function))
    parent_of = {child: node for node in nodes for child in ast.iter_child_nodes(node)}
    local: dict[str, str] = {}
    kept = set()  # expressions whose value a local name keeps
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            choice = isinstance(node.value, ast.IfExp)
            for value in [node.value.body, node.value.orelse] if choice else [node.value]:
                if name := _dotted(value, roots, local):
                    local[node.targets[0].id] = name
                    kept.add(value)
    for node in nodes:
        begins = isinstance(node, ast.Call | ast.Name) and not isinstance(
            getattr(node, "ctx", None), ast.Store
        )
        if not begins or not _dotted(node, roots, local):
            continue
        top = node
        while isinstance(parent_of[top], ast.Attribute):
            top = parent_of[top]
        parent = parent_of[top]
        if top is node and top not in kept and not isinstance(parent, ast.Expr):
            raise ValueError(f"line {node.lineno}: a device's module goes where it is not followed")
        if top is not node:
            call = parent if isinstance(parent, ast.Call) and parent.func is top else None
            is_set = isinstance(top.ctx, ast.Store)
            yield Use(_dotted(top, roots, local), top.lineno, is_set, call)


def _dotted(node: ast.AST, roots: dict[str, str], local: dict[str, str]) -> str:
    """`torch_npu.npu.config` for such an expression; '' for any other."""
    if isinstance(node, ast.Attribute):
        head = _dotted(node.value, roots, local)
        return head and f"{head}.{node.attr}"
    if isinstance(node, ast.Name):
        return local.get(node.id, "")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return roots.get(node.func.id, "")
    return ""
