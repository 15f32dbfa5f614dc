"""Command-line options from dataclasses: types, defaults and help come from the fields."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

# tyro's hook for errors is not public yet, so pyproject.toml bounds its version.
from tyro import _errors as events

from rltransfer.aliases import option_name
from rltransfer.errors import InputError, unknown
from rltransfer.options import path_value

T = TypeVar("T")

REGISTRY = tyro.constructors.ConstructorRegistry()


def parse_count(text: str) -> int:
    """A whole number, which may be written `2_000_000` or `2e6`.

    Raises:
        ValueError: The text is not a whole number.
    """
    for read in (int, float):
        try:
            number = read(text)
        except ValueError:
            continue
        if number == number // 1:
            return int(number)
    raise ValueError(f"{text!r} is not a whole number")


READERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    int: ("N", parse_count),
    float: ("NUMBER", float),
    str: ("TEXT", str),
    Path: ("PATH", lambda text: path_value("the path", text)),
}
"""How the help calls a value of each type, and what reads it."""


@REGISTRY.primitive_rule
def _number_or_text(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Reads numbers, text, paths and tuples of these, each perhaps None.

    Whole numbers are read with `parse_count`. A field for text or an object, e.g. a teacher or a
    schedule, is read as text.
    """
    is_union = typing.get_origin(info.type) in (types.UnionType, typing.Union)
    kinds = set(typing.get_args(info.type)) if is_union else {info.type}
    is_optional = type(None) in kinds
    kinds.discard(type(None))
    modules = [str(getattr(kind, "__module__", "")) for kind in kinds]
    if str in kinds and any(module.startswith("rltransfer") for module in modules):
        kinds = {str}
    if len(kinds) != 1:
        return None
    kind = kinds.pop()
    is_tuple = typing.get_origin(kind) is tuple and typing.get_args(kind)[1:] == (...,)
    item = typing.get_args(kind)[0] if is_tuple else kind
    if item not in READERS:
        return None
    metavar, read = READERS[item]

    def made(words: list[str]) -> Any:
        if is_optional and words == ["None"]:
            return None
        return tuple(map(read, words)) if is_tuple else read(words[0])

    def shown(value: Any) -> list[str]:
        if value is None:
            return ["None"]
        return [str(part) for part in value] if is_tuple else [str(value)]

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*" if is_tuple else 1,
        metavar=f"{metavar} ..." if is_tuple else metavar,
        instance_from_str=made,
        is_instance=lambda value: True,  # options check their values when they are made
        str_from_instance=shown,
    )


def parse(kind: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """Reads a dataclass from options; nested dataclasses' options have no prefix.

    Args:
        kind: The dataclass.
        argv: The options.
        prog: The command, for the help text.
        default: Values of options that are not given; the fields' defaults if None.

    Raises:
        InputError: An option is unknown, missing, given twice, or has an invalid value.
        SystemExit: `--help` was given, and printed.
    """
    known = _option_names(kind)
    words = [_with_current_name(word, known) for word in argv]
    given = [_option(word) for word in words if word.startswith("--")]
    for name in given:
        if given.count(name) > 1:
            raise InputError(f"The option {name!r} is given twice: give it once, with all values.")
    keywords: dict[str, Any] = {} if default is None else {"default": default}
    with events.on_parse_error(lambda event: _refuse(event, prog, known)):
        made: T = tyro.cli(
            kind, args=words, prog=prog, registry=REGISTRY, **keywords,
            config=(tyro.conf.OmitArgPrefixes,),
        )  # fmt: skip
    return made


def choose(
    kind: str,
    names: Iterable[str],
    words: Sequence[str],
    prog: str,
    about: str,
    describe: Callable[[str], str],
) -> tuple[str, list[str]]:
    """The name that the first word chooses, and the words after it.

    Args:
        kind: What the names are, e.g. "agent".
        names: The names that can be chosen.
        words: What follows `prog`; `--help` in the name's place prints the names.
        prog: The command so far.
        about: The command's description.
        describe: The description of one name, for the help.

    Raises:
        InputError: The name is missing or unknown.
        SystemExit: The help was printed.
    """
    known = list(names)
    if words and words[0] in ("-h", "--help"):
        app = tyro.extras.SubcommandApp()
        for name in known:
            app.command(name=name, help=describe(name))(lambda: None)
        app.cli(prog=prog, description=about, args=["--help"])
    if not words or words[0].startswith("-"):
        article = "an" if kind[0] in "aeiou" else "a"
        raise InputError(f"`{prog}` needs {article} {kind}: {', '.join(known)}.")
    if words[0] not in known:
        raise unknown(kind, words[0], known)
    return words[0], list(words[1:])


def with_method(method: type[Any], **parts: Any) -> type[Any]:
    """A dataclass that joins a method's options, as its field `method`, with others.

    Args:
        method: The method.
        parts: Dataclasses with default values, by the name of their field.
    """
    fields = [(name, type(part), dataclasses.field(default=part)) for name, part in parts.items()]
    # Without a name, the help calls the options of its network "network options".
    unnamed: Any = typing.Annotated[method, tyro.conf.arg(name="")]
    return dataclasses.make_dataclass(
        "Options",
        [*fields, ("method", unnamed, dataclasses.MISSING)],
        frozen=True,
        kw_only=True,
        namespace={"__doc__": summary(method), "__module__": __name__},
    )


def summary(kind: type[Any]) -> str:
    """The first line of a class's docstring."""
    return (kind.__doc__ or "").partition("\n")[0]


def _refuse(event: events.ParseErrorEvent, prog: str, known: Sequence[str]) -> None:
    """Raises what tyro would print in a frame as one sentence; leaves events it does not know."""
    match event:
        case events.InstantiationFailure(argument=None, message=message):
            raise InputError(message)  # a dataclass refused its values
        case events.InstantiationFailure(argument=argument, message=message):
            if re.search(r"\d,", message):
                message = "write numbers without commas, and several with spaces between"
            problem = f"{argument.display_name()}: {message}"  # type: ignore[union-attr]
        case events.InvalidChoice(argument=argument, value=value, choices=choices):
            raise unknown(argument.display_name(), value, choices)
        case events.BadValue(argument=argument):
            problem = f"The option {argument.display_name()} needs a value"
        case events.UnrecognizedArgs(tokens=tokens):
            _refuse_unknown(tokens, prog, known)
        case events.MissingArgs(unrecognized_tokens=[_, *_] as tokens):
            _refuse_unknown(tokens, prog, known)
        case events.MissingArgs(missing_arguments=[missing, *_]):
            word = missing.arg.lowered.metavar if missing.arg.is_positional() else None
            problem = f"{word or missing.arg.display_name()} is missing"
        case _:
            return
    raise InputError(f"{problem}; see `{prog} --help`.")


def _refuse_unknown(tokens: list[str], prog: str, known: Sequence[str]) -> NoReturn:
    """Refuses the first word that no option takes."""
    word = next((word for word in tokens if word.startswith("-")), tokens[0])
    # Without the dashes, which make all options alike.
    names = {name[2:]: name for name in known}
    near = difflib.get_close_matches(_option(word)[2:], names, n=1, cutoff=0.7)
    hint = f": did you mean '--{near[0]}'?" if near else f"; see `{prog} --help`."
    if not word.startswith("-") and "--task" in known:
        hint = f": did you mean '--task {word}'?"
    raise InputError(f"There is no option {word!r}{hint}")


def _option(word: str) -> str:
    """The option in a word `--NAME` or `--NAME=VALUE`, as help shows it."""
    return word.partition("=")[0].replace("_", "-")


def _with_current_name(word: str, known: Sequence[str]) -> str:
    """A word with an option of an earlier version or of another library under its current name."""
    if not word.startswith("--"):
        return word
    name = _option(word)[2:].replace("-", "_")
    option = option_name(name, [one[2:].replace("-", "_") for one in known])
    value = "".join(word.partition("=")[1:])
    return word if option == name else f"--{option.replace('_', '-')}{value}"


def _option_names(kind: type[Any]) -> list[str]:
    names: list[str] = []
    for name, hint in typing.get_type_hints(kind).items():
        if hasattr(hint, "__dataclass_fields__"):
            names += _option_names(hint)
        else:
            names.append("--" + name.replace("_", "-"))
    return names
