"""Text in yaml, read so that nothing in it is lost, endless or more than it seems.

yaml's own safe loader lets the last of two equal keys win, builds what contains itself, and reads
010 as eight and 1:30 as ninety. Here these are errors, as are tags, of which a setting needs none.
"""

from __future__ import annotations

import re

import yaml

from lib.runtime.checked import shown
from lib.runtime.text import one_line, printable

MAX_DEPTH = 20  # blocks within blocks; an experiment has five
_MAX_VALUES = 5000  # with each alias counted as what it stands for
_MERGE_KEY = "<<"
_INT, _FLOAT, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("int", "float", "merge"))
_FIRST = list("-+.0123456789")  # characters that a number begins with


class NotYamlError(ValueError):
    """Text that is no yaml; the message says where and why."""


def read_yaml(text: str) -> object:
    """Return what one yaml document says; None for an empty one.

    Raises NotYamlError, or ValueError for yaml that is refused: one line, with the place in `text`.
    """
    try:
        return _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        problem = " ".join(filter(None, (error.context, error.problem)))
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise NotYamlError(f"{place}{problem}") from None
    except yaml.YAMLError as error:  # a character that yaml has no place for
        raise NotYamlError(one_line(error)) from None


class _Loader(yaml.SafeLoader):
    """Composes nodes as yaml's safe loader does, and checks each when it is complete."""

    # Of yaml's numbers the decimal ones; the others stay texts, which no number's key takes.
    yaml_implicit_resolvers = {
        first: [one for one in resolvers if one[0] not in (_INT, _FLOAT)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str):
        super().__init__(text)
        self._depth = 0
        self._extents: dict[yaml.Node, tuple[int, int]] = {}  # (values, depth) of complete nodes

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        """Compose the next node. Raises ValueError for one that is refused."""
        event = self.peek_event()
        line = event.start_mark.line + 1
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise NotYamlError(
                f"line {line}: the tag {printable(tag)} has no meaning: leave it out"
            )
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"line {line}: more than {MAX_DEPTH} blocks within each other")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if node not in self._extents:
                name = printable(event.anchor)
                raise ValueError(f"line {line}: *{name} stands within what it stands for, &{name}")
        elif node is not None:
            self._extents[node] = self._extent(node, line)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put the keys of merged blocks in: a block's own win, then those of the first merged one.

        So yaml has it. Its own loader lets the last of several merged blocks win.
        """
        merged = [value for key, value in node.value if key.tag == _MERGE]
        own = [pair for pair in node.value if pair[0].tag != _MERGE]
        inherited: list[tuple[yaml.Node, yaml.Node]] = []
        for value in merged:  # one at most: the key stands once
            blocks = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for block in reversed(blocks):
                if not isinstance(block, yaml.MappingNode):
                    problem = f"{_MERGE_KEY} merges blocks of keys, and this is none"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=block.start_mark)
                self.flatten_mapping(block)
                inherited += block.value
        node.value = inherited + own

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        """Return what a node stands for; yaml's own error names no line of a date or number."""
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:
            raise yaml.MarkedYAMLError(
                problem=f"{shown(node.value)}: {error}", problem_mark=node.start_mark
            ) from None

    def _extent(self, node: yaml.Node, line: int) -> tuple[int, int]:
        """Return how many values a complete node has, and how deep it is, its aliases opened."""
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
            inner = [one for pair in node.value for one in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        extents = [self._extents[one] for one in inner]
        values = 1 + sum(count for count, _ in extents)
        depth = 1 + max((depth for _, depth in extents), default=0)
        if values > _MAX_VALUES:
            raise ValueError(f"line {line}: more than {_MAX_VALUES} values, with aliases opened")
        if depth > MAX_DEPTH:
            raise ValueError(f"line {line}: more than {MAX_DEPTH} blocks within each other")
        return values, depth

    def _check_keys(self, mapping: yaml.MappingNode) -> None:
        """Raise ValueError for a key that stands twice, with both lines."""
        lines: dict[object, int] = {}
        for node, _ in mapping.value:
            if not isinstance(node, yaml.ScalarNode):
                continue  # yaml refuses it later
            line = node.start_mark.line + 1
            key = _MERGE_KEY if node.value == _MERGE_KEY else self.construct_object(node)
            if key in lines:
                raise ValueError(
                    f"line {line}: {printable(node.value)} stands here a second time, after line "
                    f"{lines[key]}, and one of the two would be lost: {_way_out(key)}"
                )
            lines[key] = line


def _way_out(key: object) -> str:
    if key == _MERGE_KEY:
        return "name all that is merged in one list, <<: [*a, *b]"
    return "keep one, with all that belongs below it"


_Loader.add_implicit_resolver(_INT, re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), _FIRST)
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"(?:[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?|\.[0-9]+(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    _FIRST,
)
