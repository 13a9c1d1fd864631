"""Small changes to the graph of an ONNX model, in place."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from onnx import ModelProto, NodeProto, TensorProto


def constants_of(model: ModelProto) -> dict[str, TensorProto]:
    """Return the tensors that never change, by name: weights and the outputs of Constant nodes."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    return constants


def set_nodes(model: ModelProto, nodes: Iterable[NodeProto]) -> None:
    """Put `nodes` in the place of the model's own."""
    nodes = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def drop_unused_constants(model: ModelProto) -> None:
    """Remove Constant nodes and weights that nothing reads."""
    used = {name for node in model.graph.node for name in node.input}
    used |= {value.name for value in model.graph.output}
    set_nodes(
        model, [n for n in model.graph.node if n.op_type != "Constant" or n.output[0] in used]
    )
    weights = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)


def sort_nodes(model: ModelProto) -> None:
    """Put each node behind those whose outputs it reads, as ONNX demands; else keep the order.

    Raises ValueError where nodes wait for each other.
    """
    nodes = list(model.graph.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needed = [{maker[name] for name in node.input if name in maker} for node in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for index, before in enumerate(needed):
        for other in before:
            readers[other].append(index)
    num_missing = [len(before) for before in needed]
    ready = [index for index, count in enumerate(num_missing) if not count]
    heapify(ready)
    ordered = []
    while ready:
        index = heappop(ready)
        ordered.append(nodes[index])
        for reader in readers[index]:
            num_missing[reader] -= 1
            if not num_missing[reader]:
                heappush(ready, reader)
    if len(ordered) < len(nodes):
        raise ValueError(f"{len(nodes) - len(ordered)} nodes of the graph wait for each other")
    set_nodes(model, ordered)
