"""Each operator computes what onnxruntime does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from rltransfer.errors import InputError
from rltransfer.importers.onnx_file import read_onnx
from rltransfer.importers.onnx_graph import OnnxGraph
from rltransfer.importers.onnx_operators import BINARY, OPERATORS, REDUCTIONS, UNARY
from rltransfer.importers.program_policy import FAILURES

TOLERANCE = 1e-5

FLOAT, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.5, 1.5, shape).astype(np.float32)


def written(
    path: Path,
    nodes: list[Any],
    seen: tuple[int | str, ...] = ("rows", 6),
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 18,
    outputs: tuple[str, ...] = ("y",),
    kind: int = FLOAT,
) -> Path:
    """Writes a graph with the input `x`."""
    values = [numpy_helper.from_array(one, name) for name, one in (weights or {}).items()]
    out = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("x", FLOAT, seen)], out, values
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def assert_same(path: Path, x: np.ndarray, outputs: tuple[str, ...] = ("y",)) -> None:
    """Compares all outputs with onnxruntime's."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(list(outputs), {"x": x})
    graph = OnnxGraph(read_onnx(path), outputs)
    found = graph({"x": torch.from_numpy(x)})
    for name, one in zip(outputs, expected, strict=True):
        assert tuple(found[name].shape) == one.shape
        # onnxruntime's round and torch's may differ in the last place of a float32.
        np.testing.assert_allclose(
            found[name].float(), one.astype(np.float32), TOLERANCE, TOLERANCE
        )


POSITIVE = {"Log", "Reciprocal", "Sqrt"}
WITHIN_ONE = {"Acos", "Asin"}
LOGICAL = {"And", "Or", "Xor"}


@pytest.mark.parametrize("name", sorted(UNARY))
def test_operators_of_one_input(name: str, tmp_path: Path) -> None:
    x = drawn(5, 6)
    x = np.abs(x) + 0.1 if name in POSITIVE else x / 2 if name in WITHIN_ONE else x
    nodes = [helper.make_node(name, ["x"], ["y"])]
    if name == "Not":
        nodes = [helper.make_node("IsNaN", ["x"], ["b"]), helper.make_node(name, ["b"], ["y"])]
    kind = BOOL if name in ("Not", "IsNaN") else FLOAT
    assert_same(written(tmp_path / "a.onnx", nodes, kind=kind), x)


@pytest.mark.parametrize("name", sorted(BINARY))
def test_operators_of_two_inputs(name: str, tmp_path: Path) -> None:
    weight = drawn(6, seed=1)
    weights = {"w": np.abs(weight) if name == "PRelu" else weight, "zero": drawn(1) * 0}
    nodes = [helper.make_node(name, ["x", "w"], ["y"])]
    if name in LOGICAL:
        nodes = [
            helper.make_node("Greater", ["x", "w"], ["a"]),
            helper.make_node("Less", ["x", "zero"], ["b"]),
            helper.make_node(name, ["a", "b"], ["y"]),
        ]
    compares = name in LOGICAL or "Equal" in name or name in ("Greater", "Less")
    path = written(tmp_path / "a.onnx", nodes, weights=weights, kind=BOOL if compares else FLOAT)
    assert_same(path, np.abs(drawn(5, 6)) if name == "Pow" else drawn(5, 6))


@pytest.mark.parametrize("axes", [[-1], [0, 1], None])
@pytest.mark.parametrize("name", sorted(REDUCTIONS))
def test_reductions(name: str, axes: list[int] | None, tmp_path: Path) -> None:
    weights = {} if axes is None else {"axes": whole(*axes)}
    node = helper.make_node(name, ["x", *weights], ["y"], keepdims=int(axes != [-1]))
    assert_same(written(tmp_path / "a.onnx", [node], weights=weights), drawn(5, 6))


def case(op: str, weights: dict[str, Any] | None = None, **attributes: Any) -> Any:
    return pytest.param(op, weights or {}, attributes, id=f"{op}-{attributes}"[:60])


W = drawn(4, 6, seed=1)


@pytest.mark.parametrize(
    ("op", "weights", "attributes"),
    [
        case("Gemm", {"w": W, "b": drawn(4)}, transB=1),
        case("Gemm", {"w": W.T.copy(), "b": drawn(4)}),
        case("Gemm", {"w": W.T.copy(), "b": drawn(1, 4)}, alpha=0.5, beta=2.0),
        case("Gemm", {"w": W.T.copy(), "b": drawn(1)}),
        case("Gemm", {"w": W.T.copy()}),
        case("MatMul", {"w": W.T.copy()}),
        case("Elu", alpha=0.7), case("Selu"), case("Celu", alpha=0.6), case("LeakyRelu", alpha=0.1),
        case("HardSigmoid"), case("HardSigmoid", alpha=0.3, beta=0.4),
        case("Clip", {"low": np.float32(-0.5), "high": np.float32(0.25)}),
        case("Softmax"), case("Softmax", axis=0), case("LogSoftmax"),
        case("ArgMax", axis=1), case("ArgMax", axis=-1, keepdims=0), case("ArgMin", axis=1),
        case("Concat", {"w": drawn(5, 2)}, axis=1),
        case("Reshape", {"shape": whole(0, 2, -1)}), case("Reshape", {"shape": whole(-1)}),
        case("Flatten"), case("Flatten", axis=0), case("Transpose"), case("Transpose", perm=[1, 0]),
        case("Unsqueeze", {"axes": whole(0, -1)}),
        case("Expand", {"shape": whole(2, 1, 6)}), case("Expand", {"shape": whole(1)}),
        case("Slice", {"s": whole(1), "e": whole(2**63 - 1), "a": whole(1)}),
        case("Slice", {"s": whole(-2), "e": whole(99), "a": whole(-1), "t": whole(1)}),
        case("Slice", {"s": whole(-1), "e": whole(-99), "a": whole(1), "t": whole(-2)}),
        case("Slice", {"s": whole(0, 5), "e": whole(4, 1), "a": whole(0, 1), "t": whole(2, -1)}),
        case("Gather", {"i": whole(2, 0, -1)}, axis=1), case("Gather", {"i": np.int64(3)}, axis=1),
        case("Gather", {"i": np.array([[0, 1], [2, 3]])}, axis=1),
        case("Pad", {"p": whole(0, 1, 0, 2)}),
        case("Pad", {"p": whole(1, 2), "v": np.float32(7), "a": whole(1)}),
        case("Tile", {"r": whole(1, 3)}),
        case("Cast", to=INT64), case("CastLike", {"w": whole(1)}),
        case("Max", {"a": drawn(6), "b": drawn(1)}), case("Min", {"a": drawn(6)}),
        case("Sum", {"a": drawn(6), "b": drawn(6)}),
        case("LayerNormalization", {"s": drawn(6), "b": drawn(6)}, epsilon=1e-3),
        case("Dropout"),
    ],
)  # fmt: skip
def test_operators_with_weights_and_attributes(
    op: str, weights: dict[str, Any], attributes: dict[str, Any], tmp_path: Path
) -> None:
    node = helper.make_node(op, ["x", *weights], ["y"], **attributes)
    named = {name: np.asarray(one) for name, one in weights.items()}
    kind = INT64 if op in ("ArgMax", "ArgMin", "Cast", "CastLike") else FLOAT
    x = drawn(5, 6) * (10 if kind == INT64 else 1)
    assert_same(written(tmp_path / "a.onnx", [node], weights=named, kind=kind), x)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate: str, tmp_path: Path) -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], approximate=approximate)
    assert_same(written(tmp_path / "a.onnx", [node], opset=20), drawn(5, 6))


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Conv", {}), ("Conv", {"strides": [2, 1], "pads": [1, 2, 1, 2]}),
        ("Conv", {"pads": [0, 1, 2, 3]}), ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("Conv", {"auto_pad": "SAME_LOWER"}), ("Conv", {"dilations": [2, 2]}),
        ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}),
        ("AveragePool", {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1}),
        ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("GlobalAveragePool", {}), ("GlobalMaxPool", {}), ("BatchNormalization", {"epsilon": 0.1}),
    ],
)  # fmt: skip
def test_operators_of_images(op: str, attributes: dict[str, Any], tmp_path: Path) -> None:
    weights = {}
    if op == "Conv":
        weights = {"w": drawn(4, 3, 3, 3, seed=1), "b": drawn(4)}
    elif op == "BatchNormalization":
        weights = {name: np.abs(drawn(3, seed=n)) for n, name in enumerate("sbmv")}
    node = helper.make_node(op, ["x", *weights], ["y"], **attributes)
    path = written(tmp_path / "a.onnx", [node], ("rows", 3, 9, 8), weights)
    assert_same(path, drawn(2, 3, 9, 8))


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
@pytest.mark.parametrize("linear", [0, 1])
def test_recurrent_layers(op: str, linear: int, tmp_path: Path) -> None:
    gates = 4 if op == "LSTM" else 3
    weights = {
        "w": drawn(1, gates * 5, 6, seed=1), "r": drawn(1, gates * 5, 5, seed=2),
        "b": drawn(1, 2 * gates * 5, seed=3), "h": drawn(1, 4, 5, seed=4), "c": drawn(1, 4, 5),
    }  # fmt: skip
    inputs = ["x", "w", "r", "b", "", "h", "c"][: 7 if op == "LSTM" else 6]
    outputs = ("y", "after", "cell")[: 3 if op == "LSTM" else 2]
    extra: dict[str, Any] = {} if op == "LSTM" else {"linear_before_reset": linear}
    node = helper.make_node(op, inputs, outputs, hidden_size=5, **extra)
    path = written(tmp_path / "a.onnx", [node], (3, "rows", 6), weights, outputs=outputs)
    assert_same(path, drawn(3, 4, 6), outputs)


def test_sizes_become_shapes_and_numbers(tmp_path: Path) -> None:
    # y = x.reshape(rows, 6 / 2, 2) + rows, with the rows from the shape of x.
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Constant", [], ["two"], value_ints=[2]),
        helper.make_node("Div", ["six", "two"], ["three"]),
        helper.make_node("Concat", ["rows", "three", "two"], ["sizes"], axis=0),
        helper.make_node("ConstantOfShape", ["rows"], ["many"]),
        helper.make_node("Reshape", ["x", "sizes"], ["reshaped"]),
        helper.make_node("Cast", ["rows"], ["number"], to=FLOAT),
        helper.make_node("Add", ["reshaped", "number"], ["y"]),
    ]
    path = written(tmp_path / "a.onnx", nodes, weights={"zero": whole(0), "six": whole(6)})
    assert_same(path, drawn(5, 6))
    graph = OnnxGraph(read_onnx(path), ["y"])
    for rows in (1, 7):
        found = graph({"x": torch.zeros(rows, 6)})["y"]
        assert found.shape == (rows, 3, 2) and bool((found == rows).all())


@pytest.mark.parametrize("sizes", [None, [1, 3, 2]])
def test_a_split_has_several_outputs(sizes: list[int] | None, tmp_path: Path) -> None:
    weights = {} if sizes is None else {"sizes": whole(*sizes)}
    outputs = ("a", "b", "c")
    extra = {"num_outputs": 3} if sizes is None else {}
    node = helper.make_node("Split", ["x", *weights], outputs, axis=1, **extra)
    path = written(tmp_path / "a.onnx", [node], weights=weights, outputs=outputs)
    assert_same(path, drawn(5, 6), outputs)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Squeeze", ["x"], ["y"], axes=[1]),
        helper.make_node("Unsqueeze", ["x"], ["y"], axes=[0, 2]),
        helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2]),
        helper.make_node("Clip", ["x"], ["y"], min=-0.5, max=0.5),
        helper.make_node("Slice", ["x"], ["y"], axes=[2], starts=[1], ends=[3]),
        helper.make_node("Pad", ["x"], ["y"], pads=[0, 0, 1, 0, 0, 2], value=3.0),
        helper.make_node("Softmax", ["x"], ["y"]),
        helper.make_node("LogSoftmax", ["x"], ["y"], axis=2),
    ],
    ids=lambda node: node.op_type,
)
def test_operators_of_old_versions(node: Any, tmp_path: Path) -> None:
    assert_same(written(tmp_path / "a.onnx", [node], (2, 1, 6), opset=9), drawn(2, 1, 6))


def test_conditions_and_ranges(tmp_path: Path) -> None:
    # y = x where x > 0, else 0, 1, ... 5
    nodes = [
        helper.make_node("Size", ["floor"], ["size"]),
        helper.make_node("Range", ["first", "size", "one"], ["places"]),
        helper.make_node("Cast", ["places"], ["numbers"], to=FLOAT),
        helper.make_node("Greater", ["x", "floor"], ["above"]),
        helper.make_node("Where", ["above", "x", "numbers"], ["chosen"]),
        helper.make_node("Identity", ["chosen"], ["y"]),
    ]
    weights = {"floor": drawn(6) * 0, "first": np.array(0), "one": np.array(1)}
    assert_same(written(tmp_path / "a.onnx", nodes, weights=weights), drawn(5, 6))


def constants(*values: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip("abc", values, strict=False))


@pytest.mark.parametrize(
    ("op", "weights", "attributes"),
    [
        ("ConstantOfShape", constants(whole(2**62, 2**62)), {}),
        ("Expand", constants(drawn(1), whole(2**62, 2**62)), {}),
        ("Tile", constants(drawn(1), whole(2**62)), {}),
        ("Pad", constants(drawn(1), whole(2**62, 2**62)), {}),
        ("Div", constants(whole(1), whole(0)), {}),
        ("Conv", constants(drawn(1, 1, 4), drawn(1, 1, 3)), {"dilations": [2**62]}),
        ("Conv", constants(drawn(1, 1, 4), drawn(1, 1, 3)), {"strides": [0]}),
        ("MaxPool", constants(drawn(1, 1, 4)), {"kernel_shape": [0]}),
        ("MaxPool", constants(drawn(1, 1, 4)), {"kernel_shape": [2], "auto_pad": "SAME_UPPER",
                                                "strides": [0]}),
        ("Gather", constants(drawn(3), whole(3)), {}),
        ("Reshape", constants(drawn(3), whole(2, 2)), {}),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_an_error(
    op: str, weights: dict[str, np.ndarray], attributes: dict[str, Any], tmp_path: Path
) -> None:
    node = helper.make_node(op, list(weights), ["number"], **attributes)
    nodes = [node, helper.make_node("Add", ["x", "number"], ["y"])]
    graph = OnnxGraph(read_onnx(written(tmp_path / "a.onnx", nodes, weights=weights)), ["y"])
    with pytest.raises((*FAILURES, MemoryError)):
        graph({"x": torch.zeros(1, 6)})


def test_the_smallest_number_is_divided(tmp_path: Path) -> None:
    # The quotient 2^63 overflows to -2^63; a processor's own division would end the process.
    nodes = [
        helper.make_node("Div", ["small", "minus"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["number"], to=FLOAT),
        helper.make_node("Add", ["x", "number"], ["y"]),
    ]
    weights = {"small": whole(-(2**63), -7), "minus": whole(-1, -2)}
    path = written(tmp_path / "a.onnx", nodes, ("rows", 2), weights)
    found = OnnxGraph(read_onnx(path), ["y"])({"x": torch.zeros(1, 2)})
    assert found["y"].tolist() == [[-(2.0**63), 3.0]]


def test_every_operator_is_tested() -> None:
    source = Path(__file__).read_text()
    named = {*UNARY, *BINARY, *REDUCTIONS}
    assert not [one for one in OPERATORS if f'"{one}"' not in source and one not in named]


def test_shapes_that_depend_on_observations_are_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["sizes"], to=INT64),
        helper.make_node("ConstantOfShape", ["sizes"], ["y"]),
    ]
    file = read_onnx(written(tmp_path / "a.onnx", nodes))
    with pytest.raises(InputError, match="'ConstantOfShape' depends on what is observed"):
        OnnxGraph(file, ["y"])
    # Nobody needs the output: then it may.
    nodes += [helper.make_node("Relu", ["x"], ["z"])]
    file = read_onnx(written(tmp_path / "a.onnx", nodes, outputs=("y", "z")))
    assert len(OnnxGraph(file, ["z"]).nodes) == 1


def test_unknown_operators_are_refused_by_name(tmp_path: Path) -> None:
    node = helper.make_node("Einsum", ["x", "x"], ["y"], equation="ij,ij->i")
    with pytest.raises(InputError, match="its operator 'Einsum' is not supported"):
        OnnxGraph(read_onnx(written(tmp_path / "a.onnx", [node])), ["y"])


def test_values_that_nothing_computes_are_refused(tmp_path: Path) -> None:
    relu = helper.make_node("Relu", ["later"], ["y"])
    made = helper.make_node("Relu", ["x"], ["later"])
    with pytest.raises(InputError, match="'later' is used before it is computed"):
        OnnxGraph(read_onnx(written(tmp_path / "a.onnx", [relu, made])), ["y"])
    with pytest.raises(InputError, match="'later' is computed twice"):
        OnnxGraph(read_onnx(written(tmp_path / "a.onnx", [made, made])), ["later"])
