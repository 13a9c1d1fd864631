"""lib/export/onnx_graph.py: changes to a graph that keep it the same function."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lib.export.onnx_graph import constants_of, drop_unused_constants, sort_nodes
from lib.export.onnx_metadata import opset_of

node = helper.make_node


def model_of(nodes, weights=(), opsets=(("", 13),)):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("image", TensorProto.FLOAT, [1])],
        [value("class", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.float32([1]), name) for name in weights],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets]
    return helper.make_model(graph, ir_version=7, opset_imports=imports)


def test_nodes_are_sorted_and_keep_their_order_where_they_may():
    model = model_of(
        [
            node("Add", ["b", "c"], ["class"]),
            node("Relu", ["a"], ["b"]),
            node("Abs", ["a"], ["c"]),
            node("Neg", ["image"], ["a"]),
            node("Neg", ["image"], ["unread"]),
        ]
    )
    with pytest.raises(onnx.checker.ValidationError, match="topologically sorted"):
        onnx.checker.check_model(model)
    sort_nodes(model)
    onnx.checker.check_model(model)
    outputs = [n.output[0] for n in model.graph.node]
    assert outputs == ["a", "b", "c", "class", "unread"]
    sort_nodes(model)
    assert [n.output[0] for n in model.graph.node] == outputs


def test_a_node_that_reads_one_tensor_twice_or_nothing_is_sorted_too():
    model = model_of([node("Add", ["a", "a"], ["class"]), node("Clip", ["image", "", ""], ["a"])])
    sort_nodes(model)
    assert [n.op_type for n in model.graph.node] == ["Clip", "Add"]


def test_nodes_that_wait_for_each_other_are_an_error():
    model = model_of([node("Relu", ["b"], ["a"]), node("Relu", ["a"], ["b"])])
    with pytest.raises(ValueError, match="2 nodes of the graph wait for each other"):
        sort_nodes(model)


def test_constants_are_weights_and_constant_nodes_and_unused_ones_are_dropped():
    one = helper.make_tensor("", TensorProto.FLOAT, [1], [1.0])
    model = model_of(
        [
            node("Constant", [], ["used"], value=one),
            node("Constant", [], ["unused"], value=one),
            node("Sum", ["image", "used", "w"], ["class"]),
        ],
        weights=("w", "v"),
    )
    assert sorted(constants_of(model)) == ["unused", "used", "v", "w"]
    drop_unused_constants(model)
    assert sorted(constants_of(model)) == ["used", "w"]
    onnx.checker.check_model(model)


def test_the_opset_is_that_of_the_standard_domain_under_both_of_its_names():
    relu = [node("Relu", ["image"], ["class"])]
    assert opset_of(model_of(relu)) == 13
    assert opset_of(model_of(relu, opsets=(("com.microsoft", 20), ("ai.onnx", 11)))) == 11
    assert opset_of(model_of(relu, opsets=(("com.microsoft", 1),))) == 0
