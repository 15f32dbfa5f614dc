"""What is checked of a TorchScript file before it is opened, and before its program runs.

torch reads the zip with another reader than Python's, so the two may see different files in it.
Hence torch never reads the file itself, but a copy packed anew from exactly what was checked.
"""

from __future__ import annotations

import ast
import functools
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch

from rltransfer.errors import InputError
from rltransfer.importers.archive import unpacked
from rltransfer.importers.saved_tensors import TensorBuilder
from rltransfer.importers.script_data import ScriptClass, ScriptReader, ScriptWriter
from rltransfer.importers.script_lstm import without_lstm

T = TypeVar("T")

PLAIN = ("version", ".data/version", "byteorder")
"""The files without values or a program."""

WANTED = re.compile(
    r"[^/]+/(version|\.data/version|byteorder|data\.pkl|constants\.pkl|(data|constants)/\w+"
    r"|code/(__torch__)(/\w+)*\.py)",
    re.ASCII,
)
"""The files that are read. Others hold line numbers for messages, or programs for phones."""

LONGEST_PROGRAM = 2**22
"""Bytes of source."""

LARGEST_PROGRAM = 200_000
"""Nodes of syntax after every call is replaced by what it calls, as TorchScript does: a program of
a few lines may double at each."""

DEEPEST = 200
"""Levels of nesting in the source; TorchScript's own parser has no bound but the stack."""

_DUNDERS = """
and annotations bool buffers constants contains getitem init is isnot len main not or parameters
torch xor
"""
DUNDERS = frozenset(f"__{name}__" for name in _DUNDERS.split())
"""The names with two underscores at both ends that a program may contain. Of the others, some run
when a file is loaded (`__setstate__`), or alongside the method that is checked (hooks)."""

PLAIN_TEXT = re.compile(r"[\x20-\x7e\n]*")

WORDS = re.compile(r"\b__\w+__\b", re.ASCII)

REASONS = {
    "aten::from_file": "reads and writes files",
    "aten::save": "writes files",
    "prim::CallFunction": "calls a function that cannot be checked before it runs",
    "prim::CallMethod": "calls a method that cannot be checked before it runs",
    "prim::PythonOp": "calls Python",
    "prim::fork": "calls a function that cannot be checked before it runs",
    "prim::rpc_async": "calls other machines",
    "prim::rpc_remote": "calls other machines",
    "prim::rpc_sync": "calls other machines",
}
"""What some forbidden operators do."""

_ATEN = """
Bool Float FloatImplicit Int IntImplicit ScalarImplicit abs absolute acos acosh adaptive_avg_pool1d
adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d add addcdiv addcmul
addmm addmv all allclose alpha_dropout amax amin aminmax any append arange arccos arcsin arctan
arctan2 argmax argmin argsort asin asinh atan atan2 atanh avg_pool1d avg_pool2d avg_pool3d baddbmm
batch_norm bernoulli bilinear bitwise_and bitwise_not bitwise_or bitwise_xor bmm broadcast_tensors
broadcast_to bucketize cat cdist ceil celu chunk clamp clamp_max clamp_min clear clip clone concat
concatenate constant_pad_nd contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d
conv_transpose3d copy copy_ cos cosh cosine_similarity count_nonzero cpu cross cummax cummin cumprod
cumsum deg2rad degrees detach detach_ device diag diag_embed diagonal diff dim div divide dot
dropout einsum elu embedding empty empty_like eq equal erf erfc erfinv exp exp2 expand expand_as
expm1 extend eye feature_alpha_dropout feature_dropout fill fill_ fix flatten flip fliplr flipud
float_power floor floor_divide floordiv fmax fmin fmod format frac frobenius_norm full full_like
gather ge gelu get glu grid_sampler group_norm gru gru_cell gt hardshrink hardsigmoid hardswish
hardtanh heaviside hstack huber_loss hypot im2col index index_add index_copy index_fill index_put
index_put_ index_select insert instance_norm is_autocast_enabled is_complex is_floating_point
is_grad_enabled is_nonzero isclose isfinite isinf isnan item items keys kthvalue l1_loss layer_norm
le leaky_relu len lerp linalg_cross linalg_inv linalg_matrix_norm linalg_norm linalg_solve
linalg_vector_norm linear linspace list log log10 log1p log2 log_sigmoid log_softmax logaddexp
logical_and logical_not logical_or logical_xor logit logsumexp lstm_cell lt manual_seed
masked_fill masked_scatter masked_select mathremainder matmul matrix_exp max max_pool1d max_pool2d
max_pool3d maximum mean median meshgrid min minimum mish mm moveaxis movedim mse_loss mul
multinomial multiply mv nan_to_num nanmean nansum narrow native_layer_norm ne neg negative new_empty
new_full new_ones new_zeros nonzero norm normal normalize nuclear_norm numel numpy_T one_hot ones
ones_like outer pad permute pixel_shuffle pixel_unshuffle polar pop positive pow prelu prod rad2deg
radians rand rand_like randint randint_like randn randn_like randperm ravel reciprocal
reflection_pad1d reflection_pad2d relu relu6 remainder remove repeat repeat_interleave
replication_pad1d replication_pad2d requires_grad_ reshape reshape_as reverse rms_norm rnn_relu
rnn_relu_cell rnn_tanh rnn_tanh_cell roll rot90 round rrelu rsqrt rsub scaled_dot_product_attention
scatter scatter_add searchsorted select selu sgn sigmoid sign silu sin sinc sinh size slice
smooth_l1_loss softmax softplus softshrink sort split split_with_sizes sqrt square squeeze stack std
std_mean str stride sub subtract sum swapaxes swapdims t take take_along_dim tan tanh tensor
tensor_split tensordot threshold tile to to_padded_tensor topk trace transpose tril triu true_divide
trunc type_as unbind unflatten unfold unique_consecutive unsafe_chunk unsafe_split unsqueeze
upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
upsample_nearest3d upsample_trilinear3d values var var_mean view view_as vstack warn where xlogy
zero_ zeros zeros_like __and__ __contains__ __derive_index __getitem__ __interpolate __is__
__isnot__ __not__ __or__ __range_length __xor__ _convolution _log_softmax
_native_multi_head_attention _nested_tensor_from_mask _nested_tensor_from_mask_left_aligned
_set_item _softmax _transformer_encoder_layer_fwd _upsample_bicubic2d_aa _upsample_bilinear2d_aa
_upsample_lanczos2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
"""

_PRIM = """
Constant DictConstruct GetAttr If ListConstruct ListUnpack Loop NumToTensor RaiseException SetAttr
TupleConstruct TupleIndex TupleSlice TupleUnpack Uninitialized abs data device dtype grad id index
is_cpu is_cuda is_nested is_quantized is_sparse isinstance itemsize layout max min ndim rangelist
requires_grad shape type unchecked_cast unchecked_unwrap_optional
"""

OPERATORS = frozenset(
    [f"aten::{name}" for name in _ATEN.split()] + [f"prim::{name}" for name in _PRIM.split()]
)
"""The operators that a program may have: they compute with the tensors that they are given."""


TOLD_APART = ("BoolType", "FloatType", "IntType", "NoneType", "StringType", "TensorType")
"""The types whose values the interpreter tells apart from others before it uses them."""

FAST = {"aten::_native_multi_head_attention": 4, "aten::_transformer_encoder_layer_fwd": 2}
"""Operators that divide by their number of heads, and its place among their arguments."""

DIVISORS = {
    "aten::floordiv": 1, "aten::fmod": 1, "aten::mathremainder": 1, "aten::remainder": 1, **FAST,
}  # fmt: skip
"""Operators that end the process when they divide whole numbers by 0, and the divisor's place."""

STATELESS = (
    "use a policy without a state, or a function that keeps a state for each row, as a "
    "CallableTeacher"
)
"""What works in place of a program that keeps a state."""

RECURRENT = ("aten::gru", "aten::rnn_relu", "aten::rnn_tanh")
"""Operators that have a variant for packed sequences."""

LONGEST_LOOP = 1_000_000
"""Rounds of a loop whose number is constant; `while` has 2^63 - 1."""


def write_checked(content: bytes, path: Path, target: BinaryIO) -> None:
    """Writes a copy of an archive that contains only what was checked, under plain names.

    LSTMs are replaced by what checks their sizes: see `script_lstm.py`.

    Args:
        content: The bytes of a TorchScript file.
        path: The file, for errors.
        target: Where the copy is written.

    Raises:
        InputError: It is too large, contains two files of one name, or its program has a part that
            runs before it can be checked, is nested too deeply, or grows too large.
        Exception: One of `DAMAGE`.
    """
    files = unpacked(content, path, lambda name: WANTED.fullmatch(name) is not None)
    if len({name.partition("/")[0] for name in files}) != 1:
        raise zipfile.BadZipFile("not one folder")
    files = {name.partition("/")[2]: part for name, part in files.items()}
    sources = {name: part for name, part in files.items() if name.endswith(".py")}
    classes = _check_program(sources, path)
    sources = without_lstm(sources)
    _check_program(sources, path)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, part in _data(files, classes, path):
            with archive.open(f"archive/{name}", "w") as file:
                file.write(part)
        plain = {name: files[name] for name in PLAIN if name in files}
        for name, part in (*sources.items(), *plain.items()):
            archive.writestr(f"archive/{name}", part)


def _data(
    files: dict[str, bytes], classes: dict[str, ScriptClass], path: Path
) -> Iterator[tuple[str, bytes | memoryview]]:
    """The names and contents of the files of values, written anew."""
    for folder in ("data", "constants"):
        reader = ScriptReader(files[f"{folder}.pkl"], path, classes)
        value = reader.load()
        data = {key: files.pop(f"{folder}/{key}") for key in reader.storages}
        writer = ScriptWriter(classes, TensorBuilder(reader.storages, data, path))
        yield f"{folder}.pkl", writer.module(value) if folder == "data" else writer.constants(value)
        yield from ((f"{folder}/{key}", part) for key, part in writer.storages.items())


def check_operators(script: torch.jit.ScriptModule, path: Path) -> None:
    """Refuses a program that does more than compute.

    Raises:
        InputError: It has an operator that is not one of `OPERATORS`, or uses one in a way that
            ends the process, never ends, or that the interpreter does not check.
    """
    for node in nodes(script.inlined_graph):
        operator = node.kind()
        if operator == "aten::lstm" or _is_packed(node):
            raise InputError(
                f"The teacher {path} has recurrent layers, which keep a state for one environment, "
                f"and whose sizes torch does not check ({', '.join(recurrent_layers(script))}): "
                f"{STATELESS}."
            )
        if operator.removesuffix("_") not in OPERATORS and operator not in OPERATORS:
            reason = REASONS.get(operator, "is not known to compute with tensors only")
            raise InputError(
                f"{path} was not run: its program has the operator {operator!r}, which {reason}."
            )
        fault = _fault(node, script)
        if fault:
            raise InputError(f"{path} was not run: its program {fault}.")


def _is_packed(node: Any) -> bool:
    """Whether an operator is a recurrent layer for packed sequences."""
    return node.kind() in RECURRENT and "Tensor batch_sizes" in node.schema()


def recurrent_layers(script: torch.jit.ScriptModule) -> list[str]:
    """The recurrent layers of a program, by name."""
    return [
        name
        for name, layer in script.named_modules()
        if re.match("LSTM|GRU|RNN", str(getattr(layer, "original_name", "")))
    ]


def nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph, and of all blocks and graphs in it."""
    for node in graph.nodes():
        yield node
        for block in node.blocks():
            yield from nodes(block)
        for name in node.attributeNames():
            if node.kindOf(name) == "g":
                yield from nodes(node.g(name))


def _fault(node: Any, script: torch.jit.ScriptModule) -> str | None:
    """What is wrong with the use of an operator that is allowed, as a predicate."""
    inputs, outputs = list(node.inputs()), list(node.outputs())
    kinds = [output.type().kind() for output in outputs]
    match node.kind():
        case "prim::unchecked_cast" if kinds[0] not in TOLD_APART:
            known, new = inputs[0].type(), outputs[0].type()
            inner = known.getElementType() if known.kind() == "OptionalType" else known
            if inner.kind() != "NoneType" and not inner.isSubtypeOf(new):
                return f"takes a value of the type {known} for one of the type {new}"
        case "prim::Loop":
            rounds = _known(inputs[0], script)
            if isinstance(rounds, int) and rounds > LONGEST_LOOP:
                return "has a loop without a bound"
        case "prim::SetAttr" if inputs[1].type().kind() != "TensorType":
            return "changes an attribute other than a tensor"
        case "aten::mul" if kinds == ["ListType"]:
            return "repeats a list"
        case "aten::warn" if not str(_known(inputs[0], script)).isprintable():
            return "prints control characters"
        case operator if operator in DIVISORS and (kinds != ["TensorType"] or operator in FAST):
            divisor = _known(inputs[DIVISORS[operator]], script)
            if not isinstance(divisor, int | float) or not divisor > 0:
                return f"divides by a number in {operator!r} that is not known to be above 0"
    return None


def _known(value: Any, script: torch.jit.ScriptModule) -> Any:
    """The constant or attribute that a value of a graph is; None if it is neither.

    Attributes other than tensors never change: see `_fault`.
    """
    node = value.node()
    if node.kind() == "prim::Param":
        own = next(iter(script.inlined_graph.inputs())).debugName()
        return script if value.debugName() == own else None
    if node.kind() == "prim::GetAttr":
        owner = _known(next(iter(node.inputs())), script)
        return getattr(owner, node.s("name"), None)
    return value.toIValue()


def _check_program(sources: dict[str, bytes], path: Path) -> dict[str, ScriptClass]:
    """Checks the source of a program, and returns its classes by name.

    Args:
        sources: The bytes of each file, by its name such as "code/__torch__/a.py".
        path: The file, for errors.

    Raises:
        InputError: See `write_checked`.
        ValueError: The source is not a program in ASCII.
    """
    large = InputError(f"{path} was not opened: its program is too large or too deeply nested.")
    if sum(map(len, sources.values())) > LONGEST_PROGRAM:
        raise large
    trees = {}
    for name, source in sources.items():
        text = source.decode("ascii")
        # No tabs, form feeds and the like, which Python's parser and torch's may count differently.
        if not PLAIN_TEXT.fullmatch(text):
            raise ValueError("a program with control characters")
        for word in WORDS.findall(text):
            if word not in DUNDERS:
                raise InputError(
                    f"{path} was not opened: its program has {word!r}, which runs before the "
                    "program can be checked, or is not needed by a policy."
                )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(text)
        except (RecursionError, MemoryError) as error:
            raise large from error
        except SyntaxError as error:
            raise ValueError("not a program") from error
        if _depth(tree) > DEEPEST:
            raise large
        module = name.removeprefix("code/").removesuffix(".py").replace("/", ".")
        trees[module] = tree
    program = _Program(trees)
    if program.size() > LARGEST_PROGRAM:
        raise large
    return {name: ScriptClass.of(node) for name, node in program.classes.items()}


def _depth(tree: ast.AST) -> int:
    """Levels of nesting, found without recursion."""
    level, depth = [tree], 0
    while level:
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        depth += 1
    return depth


class _Program:
    """The functions and classes of a program, to find its size after inlining.

    A method is found by its name among the classes that the attributes of a class contain: the size
    is an upper bound.
    """

    def __init__(self, trees: dict[str, ast.Module]) -> None:
        """Reads a program.

        Raises:
            ValueError: It defines something twice.
        """
        self.functions: dict[str, ast.FunctionDef] = {}
        self.classes: dict[str, ast.ClassDef] = {}
        for module, tree in trees.items():
            for node in tree.body:
                if isinstance(node, ast.ClassDef):
                    _add(self.classes, f"{module}.{node.name}", node)
                    for method in _methods(node):
                        _add(self.functions, f"{module}.{node.name}/{method.name}", method)
                elif isinstance(node, ast.FunctionDef):
                    _add(self.functions, f"{module}.{node.name}", node)
        self.sizes: dict[str, int] = {}

    def size(self) -> int:
        """The largest size of a function."""
        return max(map(self.of, self.functions), default=0)

    def of(self, name: str) -> int:
        """The size of a function with all that it calls.

        Raises:
            ValueError: It calls itself.
        """
        if name not in self.sizes:
            self.sizes[name] = -1
            nodes = list(ast.walk(self.functions[name]))
            called = sum(self.called(name, node) for node in nodes if isinstance(node, ast.Call))
            self.sizes[name] = min(len(nodes) + called, 2 * LARGEST_PROGRAM)
        if self.sizes[name] < 0:
            raise ValueError("a program that calls itself")
        return self.sizes[name]

    def called(self, caller: str, call: ast.Call) -> int:
        """The size of what a call runs."""
        if not isinstance(call.func, ast.Attribute):
            return 0
        dotted = ast.unparse(call.func)
        if dotted in self.functions:
            return self.of(dotted)
        method, own = call.func.attr, caller.partition("/")[0]
        arguments = self.functions[caller].args.args
        on_self = (
            isinstance(call.func.value, ast.Name)
            and arguments[:1]
            and (call.func.value.id == arguments[0].arg)
        )
        if on_self and f"{own}/{method}" in self.functions:
            return self.of(f"{own}/{method}")
        among = self.contained(own) if own in self.classes else frozenset(self.classes)
        found = [f"{one}/{method}" for one in among if f"{one}/{method}" in self.functions]
        return max(map(self.of, found), default=0)

    @functools.cache  # noqa: B019  (a program lives for one check)
    def contained(self, name: str) -> frozenset[str]:
        """The classes of the attributes of a class, and of their attributes."""
        found: set[str] = set()
        left = [name]
        while left:
            for statement in self.classes[left.pop()].body:
                if isinstance(statement, ast.FunctionDef):
                    continue
                for node in ast.walk(statement):
                    one = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
                    if one in self.classes and one not in found:
                        found.add(one)
                        left.append(one)
        return frozenset(found)


def _add(table: dict[str, T], name: str, value: T) -> None:
    """Adds what a program defines; of two with one name, nobody knows which counts."""
    if name in table:
        raise ValueError(f"two definitions of {name}")
    table[name] = value


def _methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [part for part in node.body if isinstance(part, ast.FunctionDef)]
