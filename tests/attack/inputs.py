"""Changed files: from a seeded generator, so that the number of an input makes it again."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import archives
import onnx
import torch
from seeds import VECTOR, Seeds
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch import Tensor

from rltransfer.importers import onnx_operators

LINKS = [
    ".lock", "checkpoints", "config.json", "result.json", ".config.json.partial", ".settings",
    ".result.json.partial", "..settings.partial", "events.out.tfevents.0.settings", ".old",
    "checkpoints/best", "checkpoints/.best.old", "checkpoints/.best.partial",
    "checkpoints/step-000000000001", "checkpoints/.step-000000000080.partial",
    "checkpoints/step-000000000080", "environment-error.txt",
]  # fmt: skip
"""What training writes or removes in a run."""

CANARY = "canary"
"""What a hostile input tries to make, and the name of a module that would make it."""

KINDS = {
    "file": 40, "pickle": 8, "run": 16, "resume": 8, "command": 12, "links": 3, "layout": 3,
    "text": 8, "place": 2,
}  # fmt: skip
"""How many of a hundred inputs are of each kind."""

BOMB_MIB = 700
"""Size of the zeros that a small archive contains: more than the limit."""

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 2.5, -0.0, 1e400, float("nan"), 1e-320, "", "x", "1", "nan",
    "../" + CANARY, "/etc/passwd", "\x00", "\ud800", "ü" * 50, "a" * 5000, "{", [], [[]], {},
    [None], ["x"], {"x": 1}, {"$tensor": "x"}, {"$tensor": "/agent"}, [0.5, "y"], {"dict": {}},
    f"{CANARY}:X", "zoo", "<class 'os.system'>", "\x1b[2J\x1b]0;x\x07", "a\u202eb\x9bm", "x\r\ny",
    "/etc", "../..", "hf:a/b/c.zip",
]  # fmt: skip
"""Values in place of others in JSON."""

for depth in (90, 300, 480, 900):
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    ODD.append(deep)

HUGE: list[Any] = [2**31, 2**63, 2**64, 10**18, 10**400, [30000, 30000], [10**9], [2] * 5000]
"""More of them, where a file describes sizes that it must not be able to demand."""


def hostile_pickles() -> list[bytes]:
    """Pickles that call something, or ask for memory or time."""
    makes = CANARY.encode()
    nested = b"\x80\x02" + b"(" * 60_000 + b"t" * 60_000 + b"K\x01."
    return [
        b"cos\nmkdir\n(V" + makes + b"\ntR.",
        b"cposix\nsystem\n(Vtouch " + makes + b"\ntR.",
        b"(Vtouch " + makes + b"\nios\nsystem\n.",
        b"c" + makes + b"\nX\n.",
        b"cbuiltins\neval\n(V__import__('os').mkdir('" + makes + b"')\ntR.",
        b"cbuiltins\nbytearray\n(I10000000000\ntR.",
        b"\x80\x02Nr\xff\xff\xff\x0f.",
        b"\x80\x02" + b")\x85" + b"\x85" * 90_000 + b"}" + b".",
        nested,
        b"\x80\x02}" + b")" + b"\x85" * 90_000 + b"K\x01s.",
        b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.",
        b"\x80\x02]" + b"2a" * 50 + b".",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".",
        b"I" + b"9" * 100_000 + b"\n.",
        b"\x80\x02cnumpy\ndtype\n(Vf8\nK\x00K\x01tRN\x85b.",
        b"\x80\x02(" + b"N" * 4_000_000 + b"t.",
        b"\x80\x02" + b"(]" + b"2" * 100_000 + b"t.",
        b"\x80\x02N" + b"".join(b"r" + struct.pack("<I", n) for n in range(300_000)) + b".",
    ]


def odd_tensors() -> list[Any]:
    """Tensors and values that no policy has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            torch.zeros(1).expand(10**9), torch.zeros(1).expand(40_000, 40_000),
            torch.zeros(3, device="meta"), torch.zeros(10**9, device="meta"),
            torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
            torch.quantize_per_tensor(torch.zeros(8, 3), 0.1, 0, torch.qint8),
            torch.zeros(8, 3).to(torch.float8_e4m3fn), torch.zeros(8, 3, dtype=torch.complex64),
            torch.zeros(8, 3).to_sparse(), torch.full((8, 3), float("nan")),
            torch.full((8,), float("inf")), torch.zeros(8, 3, dtype=torch.int64), torch.zeros(()),
            torch.zeros(0), torch.zeros(0, 3), torch.zeros(1, 1, 8, 3), torch.zeros(3, 8).t(),
            torch.zeros(8, 3, dtype=torch.float16), torch.zeros(8, 3, dtype=torch.bool),
            torch.zeros(8, 3, dtype=torch.float64), None, 1, "x", [1], {"x": torch.zeros(2)},
            torch.nn.Parameter(torch.zeros(8, 3)), torch.Size([2, 3]), bytearray(10),
        ]  # fmt: skip


LINES = [
    'torch.save(x, "canary")', 'ops.aten.save(x, "canary")', 'torch.save([1], "canary")',
    'x = ops.aten.from_file("canary", True, 10)',
    "x = ops.inductor._reinterpret_tensor(x, [9], [1])",
    "x = torch.set_(x, x)", "x = torch.as_strided(x, [9999999], [1], 0)",
    "x = torch.resize_(x, [9])", "x = torch.expand(x, [-1, 99999999999])",
    'ops.prim.Print("x")', "x = torch.zeros([10000, 10000, 10000])", 'ops.prim.RaiseException("x")',
    "x = torch.add(x, " + "(" * 5000 + "1" + ")" * 5000 + ")",
    "x = " + "torch.neg(" * 3000 + "x" + ")" * 3000, "x = torch.embedding(x, torch.tensor([99]))",
    "x = self.nothing", "return None", "x = torch.slice(x, 0, 5, 2)", "x = torch.matmul(x, x)",
    "x = torch.gather(x, 1, torch.tensor([[9223372036854775807]]))", "self.__setstate__(1)",
    "x = ops.rpc.x(x)", "x = torch.index_select(x, 0, torch.tensor([-5]))",
    "pass", "x = torch.t(x)",
    "while True:\n      pass", "_n = 0\n    while torch.gt(1, 0):\n      _n = torch.add(_n, 1)",
    "for _i in range(9223372036854775807):\n      x = torch.neg(x)",
    "for _i in range(1000000):\n      x = torch.neg(x)",
    "x, _b, = unchecked_cast(Tuple[Tensor, Tensor], x)",
    "x, _b, = unchecked_cast(Tuple[Tensor, Tensor], (x,))",
    "x = unchecked_cast(__torch__.torch.nn.modules.linear.Linear, self).weight",
    "x = unchecked_cast(List[Tensor], [1, 2])[0]",
    "x = torch.add(x, torch.floordiv(1, 0))",
    "x = torch.add(x, torch.remainder(torch.len(x), torch.sub(torch.len(x), torch.len(x))))",
    "x = torch.view(x, torch.mul([1], 99999999999))",
    "_l = annotate(List[Tensor], [])\n    x = _l[5]",
    "x, _h, _c, = torch.lstm(x, [x, x], [x, x, x, x], True, 1, 0., False, False, True)",
    "x = torch.repeat(x, [100000, 100000])", "x = torch.view(x, [9, 9, -1])",
    "x, _a, _b, = torch.native_batch_norm(x, None, None, None, None, True, 0.1, 0.1)",
    "self.mean = 3", "self.training = True", "x = uninitialized(Tensor)",
]  # fmt: skip
"""Lines for the programs of TorchScript files."""

TYPES = [
    "int", "Tensor", "List[Tensor]", "Tuple[int, int]", "Optional[Tensor]", "Any", "bool", "x",
    "__torch__.torch.nn.modules.linear.Linear", "Dict[str, int]", "Final[int]",
]  # fmt: skip
"""Types for the attributes of programs."""


NUMBERS = [0, 1, -1, 2, 3, 7, 2**16, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63)]
"""Sizes and attributes of graphs."""

OPERATORS = [*onnx_operators.OPERATORS, "Loop", "If", "Scan", "Einsum", "NonZero", "RandomNormal"]
"""Operators in place of others."""

ATTRIBUTES = [
    "axis", "axes", "alpha", "transA", "perm", "strides", "pads", "dilations", "kernel_shape",
    "group", "keepdims", "to", "start", "end", "hidden_size", "layout", "num_outputs",
    "value_ints", "mode", "epsilon", "allowzero", "auto_pad", "direction",
]  # fmt: skip
"""Attributes that nodes get."""


def _hostile(draw: random.Random, graph: Any) -> None:
    """A node in front of another, whose inputs are what that reads, and odd constants."""
    place = draw.randrange(len(graph.node))
    node = graph.node[place]
    names = [f"odd{n}-{len(graph.node)}" for n in range(3)]
    for name in names:
        values = [draw.choice(NUMBERS) for _ in range(draw.choice((0, 1, 1, 2, 3)))]
        shape = draw.choice(([len(values)], [len(values)], [1, len(values)]))
        number = draw.random() < 0.3
        made = onnx.helper.make_tensor(name, 1 if number else 7, shape, values)
        graph.initializer.append(made)
    inputs = [draw.choice((*node.input, *names)) for _ in range(draw.choice((1, 2, 2, 3, 4)))]
    if node.input and draw.random() < 0.7:
        inputs[0] = node.input[0]
    attributes: dict[str, Any] = {}
    for name in draw.sample(ATTRIBUTES, draw.choice((0, 1, 2, 4))):
        numbers = [draw.choice(NUMBERS) for _ in range(draw.choice((1, 2, 4)))]
        attributes[name] = draw.choice((numbers, numbers[0], float(numbers[0]), "x"))
    added = onnx.helper.make_node(draw.choice(OPERATORS), inputs, [f"made-{names[0]}"])
    added.attribute.extend(onnx.helper.make_attribute(*one) for one in attributes.items())
    if node.input:
        node.input[draw.randrange(len(node.input))] = added.output[0]
    graph.node.insert(place, added)


class Inputs:
    """Makes inputs by number.

    Args:
        seeds: The files to change.
        seed: Another seed makes other inputs.
    """

    def __init__(self, seeds: Seeds, seed: int) -> None:
        self.seeds = seeds
        self.seed = seed
        self.pickles = hostile_pickles()
        self.tensors = odd_tensors()
        file = io.BytesIO()
        with (
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("policy.pth", "w") as member,
        ):
            for _ in range(BOMB_MIB):
                member.write(bytes(2**20))
        self.bomb = file.getvalue()

    def kind(self, number: int) -> str:
        """The kind of an input."""
        draw = random.Random(f"kind/{self.seed}/{number}")
        return draw.choices(list(KINDS), list(KINDS.values()))[0]

    def random(self, number: int) -> random.Random:
        """The generator of an input."""
        return random.Random(f"{self.seed}/{number}")

    # Bytes

    def changed(self, draw: random.Random, content: bytes) -> bytes:
        """Bytes with one or a few changes."""
        found = bytearray(content)
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            place, size = draw.randrange(len(found) + 1), draw.choice((1, 2, 4, 8, 60, 500))
            match draw.randrange(8):
                case 0 | 1 if found:
                    found[place % len(found)] ^= 1 << draw.randrange(8)
                case 2:
                    del found[place:]
                case 3:
                    del found[place : place + size]
                case 4:
                    other = self.seeds.files[draw.choice(sorted(self.seeds.files))]
                    start = draw.randrange(len(other))
                    found[place:place] = other[start : start + size]
                case 5:
                    value = draw.choice((0, 1, 0x7F, 0xFF))
                    found[place : place + size] = bytes([value] * size)
                case 6:
                    found[place : place + size] = found[place : place + size] * 2
                case _:
                    wide = draw.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, draw.getrandbits(32)))
                    found[place : place + 4] = struct.pack("<I", wide)
        return bytes(found)

    def pickled(self, draw: random.Random, content: bytes) -> bytes:
        """A pickle that is hostile, or has hostile instructions in it."""
        one = draw.choice(self.pickles)
        if draw.random() < 0.4:
            return one
        place = draw.randrange(len(content))
        return content[:place] + one.removeprefix(b"\x80\x02")[:-1] + content[place:]

    # Archives

    def archived(self, draw: random.Random, content: bytes) -> bytes:
        """A zip with other files in it, other names, or a damaged table."""
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                files = [(name, archive.read(name)) for name in archive.namelist()]
        except Exception:
            return self.changed(draw, content)
        index = draw.randrange(len(files))
        name, inner = files[index]
        match draw.randrange(9):
            case 0:
                files[index] = (self.name(draw, name), inner)
            case 1:
                files.append((draw.choice((name, name.upper())), self.changed(draw, inner)))
            case 2:
                del files[index]
            case 3:
                other = draw.choice(files)
                files[index] = (name, other[1])
            case 4:
                files.append((self.name(draw, name), b"x"))
            case 5 if draw.random() < 0.1:
                return self.bomb
            case _:
                files[index] = (name, self.member(draw, name, inner))
        if draw.random() < 0.12:
            others = [(name, self.member(draw, name, content)) for name, content in files]
            return archives.odd(draw, files, others)
        return self.packed(draw, files)

    def member(self, draw: random.Random, name: str, content: bytes) -> bytes:
        """Another content for a file in an archive."""
        try:
            return self._member(draw, name, content)
        except Exception:  # it has been changed before, and is no longer of its kind
            return self.changed(draw, content)

    def _member(self, draw: random.Random, name: str, content: bytes) -> bytes:
        if name.endswith(".py"):
            return self.program(draw, name, content)
        if name == "data":
            return self.json(draw, content, [*ODD, *HUGE])
        if name == "policy.pth" and draw.random() < 0.5:
            return self.saved(draw, content)
        if name.endswith(".pkl") and b"c__torch__" in content and draw.random() < 0.4:
            return self.swapped(draw, content)
        if name.endswith(".pkl") and draw.random() < 0.5:
            return self.pickled(draw, content)
        if content[:2] == b"PK" and draw.random() < 0.7:
            return self.archived(draw, content)
        return self.changed(draw, content)

    def swapped(self, draw: random.Random, content: bytes) -> bytes:
        """The data of a program with objects, names or values in other places."""
        names = re.findall(rb"c[\w.]+\n\w+\n", content)
        attributes = re.findall(rb"X.\x00\x00\x00\w+", content)
        one, other = draw.choice(names), draw.choice(names)
        match draw.randrange(4):
            case 0:
                return content.replace(one, other)
            case 1:
                return content.replace(one, other, 1)
            case 2:
                return content.replace(draw.choice(attributes), draw.choice(attributes), 1)
        values = (b"N", b"\x88", b"K\x01", b")", b"]", b"}", b"K\x01K\x02\x86", b"h\x00", one)
        place = content.index(b"X", draw.randrange(len(content) // 2))
        return content[:place] + draw.choice(values) + content[place:]

    def packed(self, draw: random.Random, files: list[tuple[str, bytes]]) -> bytes:
        """A zip, at times with a table that disagrees with what it lists."""
        found = bytearray(archives.packed(files, draw.choice((0, 0, 8))))
        if draw.random() < 0.3:
            tables = [match.start() for match in re.finditer(b"PK\x01\x02", found)]
            place = draw.choice(tables) + draw.choice((6, 8, 10, 16, 20, 24, 28, 30, 36, 42))
            found[place : place + 2] = struct.pack("<H", draw.choice((0, 1, 12, 14, 99, 0xFFFF)))
        return bytes(found)

    def name(self, draw: random.Random, name: str) -> str:
        """A name that leads elsewhere, or is not one."""
        prefix = draw.choice(("../", "/tmp/", "a/", "..\\", "", "//", "./"))
        suffix = draw.choice(("", "\x00", "\x00.py", " ", "é", "x" * 300, "/", "/" + CANARY))
        return f"{prefix}{name}{suffix}"

    def program(self, draw: random.Random, name: str, source: bytes) -> bytes:
        """A program with another line, other words, or functions that double."""
        lines = source.decode("latin-1").splitlines()
        heads = [n + 1 for n, line in enumerate(lines) if line.endswith("-> Tensor:")]
        if not heads:
            return self.changed(draw, source)
        # Right after the head of a function, on its argument, so that what is computed is used.
        place = draw.choice(heads)
        argument = re.findall(r"(\w+): Tensor", "\n".join(lines[:place]))[-1]
        match draw.randrange(7):
            case 6:
                typed = [n for n, line in enumerate(lines) if re.match(r"  \w+ : \w", line)]
                if typed:
                    number = draw.choice(typed)
                    lines[number] = f"{lines[number].split(' : ')[0]} : {draw.choice(TYPES)}"
            case 0 | 1:
                line = re.sub(r"\bx\b(?!\")", argument, draw.choice(LINES))
                lines.insert(place, f"    {line}")
            case 2:
                return self.changed(draw, source)
            case 3:
                words = re.findall(r"(?:torch|ops\.\w+)\.\w+(?=\()", source.decode("latin-1"))
                if words:
                    new = draw.choice(("torch.save", "ops.aten.save", "torch.neg", "ops.x.y"))
                    return source.replace(draw.choice(words).encode(), new.encode())
            case 4:
                module = name.partition("/code/")[2].removesuffix(".py").replace("/", ".")
                doubled = ["def f0(x: Tensor) -> Tensor:", "  return torch.neg(x)"]
                for level in range(1, draw.choice((3, 40))):
                    call = f"{module}.f{level - 1}"
                    doubled += [
                        f"def f{level}(x: Tensor) -> Tensor:",
                        f"  return {call}({call}(x, ), )",
                    ]
                    last = f"    {argument} = {module}.f{level}({argument}, )"
                return "\n".join([*doubled, *lines[:place], last, *lines[place:], ""]).encode()
            case _:
                hook = draw.choice(("__setstate__", "__getstate__", "__init__", "__del__", "x"))
                kind = '  def {}(self, x: Tensor) -> Tensor:\n    torch.save(x, "canary")\n'
                lines += [kind.format(hook), "    return x"]
        return "\n".join([*lines, ""]).encode()

    # Graphs

    def graph(self, draw: random.Random, content: bytes) -> bytes:
        """An ONNX file with another operator, attribute, shape, name or place of a tensor."""
        model = onnx.ModelProto.FromString(content)
        graph = model.graph
        node, tensor = draw.choice(graph.node), draw.choice(graph.initializer)
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            match draw.randrange(10):
                case 0:
                    node.op_type = draw.choice(OPERATORS)
                case 1 | 2 | 3:
                    _hostile(draw, graph)
                case 4:
                    number = draw.choice(NUMBERS)
                    tensor.dims[:] = draw.choice(([number], [number] * 2, [], [1, *tensor.dims]))
                case 5:
                    tensor.data_location = 1
                    tensor.ClearField("raw_data")
                    place = draw.choice(("/etc/passwd", "actor.onnx.data", "../x", "actor.onnx"))
                    tensor.external_data.add(key="location", value=place)
                    tensor.external_data.add(key="offset", value=draw.choice(("0", "-1", "x", "9")))
                case 6:
                    tensor.data_type = draw.randrange(30)
                case 7:
                    value = draw.choice((*graph.input, *graph.output))
                    value.name = draw.choice(
                        ("task", "state", "x", "", "\x1b[2J", "logits", "h_in")
                    )
                case 8:
                    value = draw.choice((*graph.input, *graph.output))
                    sizes = value.type.tensor_type.shape.dim
                    if sizes:
                        draw.choice(sizes).dim_value = draw.choice(NUMBERS)
                case _:
                    model.opset_import[0].version = draw.choice((0, 6, 7, 9, 12, 13, 18, 26, 2**40))
        return model.SerializeToString()

    # Tensors and JSON

    def saved(self, draw: random.Random, content: bytes) -> bytes:
        """A file of torch.save with other tensors or names."""
        value = torch.load(io.BytesIO(content), weights_only=True)
        tables = [value, *(part for part in value.values() if isinstance(part, dict) and part)]
        table = draw.choice(tables)
        name = draw.choice(sorted(table, key=str))
        match draw.randrange(5):
            case 0:
                del table[name]
            case 1:
                table[draw.choice((f"{name}.x", "x", 1, "actor.99.weight"))] = table.pop(name)
            case 2 if isinstance(table[name], Tensor) and table[name].dim():
                axis = draw.randrange(table[name].dim())
                table[name] = torch.cat([table[name]] * draw.choice((2, 3)), axis)
            case _:
                table[name] = draw.choice(self.tensors)
        file = io.BytesIO()
        old = draw.random() < 0.2
        try:
            torch.save(value, file, _use_new_zipfile_serialization=not old)
        except Exception:  # the old format has no meta tensors
            return self.changed(draw, content)
        return file.getvalue()

    def json(self, draw: random.Random, content: bytes, values: list[Any]) -> bytes:
        """JSON with another value somewhere, or none at all."""
        kind = draw.randrange(10)
        if kind == 0:
            deep = draw.choice((200, 900, 100_000))
            return draw.choice((b"[" * deep + b"]" * deep, b'{"dict":' * deep + b"1" + b"}" * deep))
        if kind == 1:
            return self.changed(draw, content)
        try:
            tree = json.loads(content)
        except (ValueError, RecursionError):
            return self.changed(draw, content)
        places: list[tuple[Any, Any]] = []
        left = [tree]
        while left:
            part = left.pop()
            keys = list(part) if isinstance(part, dict) else range(len(part))
            places += [(part, key) for key in keys]
            left += [part[key] for key in keys if isinstance(part[key], dict | list)]
        if not places:
            return content
        part, key = draw.choice(places)
        match kind:
            case 2:
                del part[key]
            case 3 if isinstance(part, dict):
                part[draw.choice(("x", "id", "kind", "$tensor", "../x"))] = draw.choice(values)
            case _:
                part[key] = draw.choice(values)
        return json.dumps(tree).encode()

    def safetensors(self, draw: random.Random, content: bytes) -> bytes:
        """A file of safetensors with another header, or other values."""
        length = int.from_bytes(content[:8], "little")
        header, rest = content[8 : 8 + length], content[8 + length :]
        match draw.randrange(5):
            case 0:
                return self.changed(draw, content)
            case 1:
                value = draw.choice((b"\x00\x00\xc0\x7f", b"\xff" * 4, b"\x00\x00\x80\x7f"))
                place = 4 * draw.randrange(max(len(rest) // 4, 1))
                return content[: 8 + length] + rest[:place] + value + rest[place + 4 :]
            case 2:
                wide = draw.choice((0, 1, 2**24, 2**40, 2**63, 2**64 - 1, length + 8))
                return struct.pack("<Q", wide) + header + rest
            case 3:
                tree = json.loads(header)
                one, other = (draw.choice(sorted(tree)) for _ in range(2))
                tree[one] = tree[other]  # two tensors in one place
                header = json.dumps(tree).encode()
            case _:
                header = self.json(draw, header, [*ODD, *HUGE, [0, 4], [4, 0], "F64", "F8_E4M3"])
        return struct.pack("<Q", len(header)) + header + rest

    def events(self, draw: random.Random, content: bytes) -> bytes:
        """An event file with other records, whose checksums are right or wrong."""
        records, place = [], 0
        while place + 12 <= len(content):
            size = int.from_bytes(content[place : place + 8], "little")
            records.append(content[place + 12 : place + 12 + size])
            place += 16 + size
        for _ in range(draw.choice((1, 1, 5, 300))):
            one = draw.choice(records)
            records.insert(draw.randrange(len(records) + 1), self.changed(draw, one) or b"x")
        found = b"".join(map(_record, records))
        return found if draw.random() < 0.7 else self.changed(draw, found)

    # Places

    def place(self, draw: random.Random, path: Path) -> None:
        """Something other than a file at a path."""
        if path.exists():
            path.unlink()
        match draw.randrange(6):
            case 0:
                os.mkfifo(path)
            case 1:
                path.mkdir()
            case 2:
                path.symlink_to("/dev/zero")
            case 3:
                path.symlink_to(path.name)
            case 4:
                path.write_bytes(b"")
            case _:
                with path.open("wb") as file:
                    file.truncate(2**36)  # takes no room on the disk

    def link(self, draw: random.Random, path: Path, victims: Path) -> None:
        """A link at a path, to a file or folder outside of the run."""
        if not path.parent.is_dir():  # it has been replaced before
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        target = draw.choice((victims, victims / "kept", victims / "new"))
        if target.is_file() and draw.random() < 0.3:
            os.link(target, path)
        else:
            path.symlink_to(os.path.abspath(target))

    def config(self, draw: random.Random) -> bytes:
        """rl-zoo's settings of a run."""
        value = draw.choice(("true", "false", "\"{'norm_obs': True, 'norm_reward': False}\"", ""))
        return b"!!python/object/apply:collections.OrderedDict\n- - - gamma\n    - 0.99\n" + (
            f"  - - normalize\n    - {value}\n"
            "  - - env_wrapper\n    - - my.Wrapper:\n          x: 1\n"
            f"  - - frame_stack\n    - {draw.choice((1, 4, 'many'))}\n".encode()
        )

    # Texts

    def text(self, draw: random.Random) -> tuple[str, str]:
        """A kind of text, and one that users or files might contain."""
        kind, text = draw.choice(TEXTS)
        found = list(text)
        for _ in range(draw.choice((0, 1, 1, 2, 6))):
            place = draw.randrange(len(found) + 1)
            match draw.randrange(6):
                case 0 if found:
                    del found[place % len(found)]
                case 1:
                    found.insert(place, draw.choice("()[]{}'\",:;*+-=@!%&|.0123e\n\x00\\é∞"))
                case 2:
                    found.insert(place, draw.choice(WORDS))
                case 3:
                    found[place:place] = found[place : place + 12]
                case 4:
                    found.insert(place, draw.choice("([{") * draw.choice((3, 150, 5000)))
                case _:
                    del found[place:]
        return kind, "".join(found)


def _record(content: bytes) -> bytes:
    """A record of an event file."""
    size = struct.pack("<Q", len(content))
    sums = (struct.pack("<I", masked_crc32c(part)) for part in (size, content))
    return size + next(sums) + content + next(sums)


TEXTS = [
    ("teacher", "Ensemble('ppo.zip', 'dqn.zip', weights=(1, 2))"),
    ("teacher", "Noisy(Boltzmann('ppo.zip', temperature=0.5), alpha=0.1)"),
    ("teacher", f"PerTask({{'{VECTOR}': 'ppo.zip'}})"),
    ("teacher", "load_teacher('sac.zip', vecnormalize='sac.pkl')"),
    ("teacher", "Vote('ppo.zip', 'dqn.zip')"),
    ("teacher", "Adapted('sac.zip', observation='time_feature', bounds='scale')"),
    ("teacher", "rsl.pt?activation=relu&group=policy"),
    ("teacher", "scripted.pt?output=mean&scale=1/255"),
    ("teacher", "recurrent.pt?output=mean&state=2x4"),
    ("teacher", "actor.onnx?output=mean&tensor=actions&rescale=true"),
    ("teacher", "hf:owner/name/file.zip@main"),
    ("teacher", "hf:owner/name/file.zip@../../../" + CANARY),
    ("teacher", "zoo:rltransfer/MinAtar-Breakout-v0"),
    ("objective", "KL(temperature=2) + 0.5 * FeatureRegression()"),
    ("objective", "Huber + MSE * '1->0@0.5'"),
    ("schedule", "1->0@0.25"),
    ("schedule", "1e-3"),
    ("task", 'sutton_barto_reward={"a": [1, 2]}'),
]  # fmt: skip
"""Texts by what reads them."""

WORDS = [
    "__import__('os').mkdir('canary')", "lambda: 0", "Ensemble(", "nan", "inf", "1e999", "-",
    "../", "/etc/passwd", "9" * 5000, "'ppo.zip'", "open('canary','w')", "**", "@", "?",
    "hf:", "%00",
]  # fmt: skip
