"""Command-line options from dataclasses: types, defaults and help come from the fields."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from rltransfer.aliases import option_name
from rltransfer.errors import InputError


def check_no_more(words: list[str], command: str) -> None:
    """Checks that no words are left over.

    Raises:
        InputError: There are some.
    """
    if words:
        raise InputError(f"{words[0]!r} is one word too many: say `rltransfer {command}`.")


T = TypeVar("T")

REGISTRY = tyro.constructors.ConstructorRegistry()


def parse_count(text: str) -> int:
    """Returns a whole number that may be written `2_000_000` or `2e6`.

    Raises:
        ValueError: The text is no whole number.
    """
    try:
        return int(text)
    except ValueError:
        with contextlib.suppress(ValueError):
            number = float(text)
            if number.is_integer():
                return int(number)
    raise ValueError(f"{text!r} is no whole number")


@REGISTRY.primitive_rule
def _count_rule(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[int] | None:
    """Lets every whole number be written as `parse_count` says."""
    if info.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="N",
        instance_from_str=lambda words: parse_count(words[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    )


@REGISTRY.primitive_rule
def _text_rule(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Reads a field that takes text or an object, e.g. a teacher or a schedule, as text."""
    kinds = typing.get_args(info.type)
    if str not in kinds or not any(
        isinstance(kind, type) and kind.__module__.startswith("rltransfer") for kind in kinds
    ):
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="TEXT",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )


def parse(kind: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """Returns the dataclass that the options describe; prints help and exits where it is asked for.

    Args:
        kind: The dataclass.
        argv: The options.
        prog: The command, for the help text.
        default: Values of what is not given; the fields' defaults if None.

    Raises:
        InputError: An option is unknown, missing, given twice, or has a value that it cannot have.
    """
    known = _names(kind)
    if {"-h", "--help"} & set(argv):
        return _cli(kind, argv, prog, default)[0]
    argv = [_with_current_name(word, known) for word in argv]
    given = [_name(word) for word in argv if word.startswith("--")]
    for name in given:
        if given.count(name) > 1:
            raise InputError(f"The option {name!r} is given twice: give it once, with all values.")
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            made, extra = _cli(kind, argv, prog, default)
    except SystemExit as error:
        refusal: BaseException | None = error
        while refusal is not None:
            if isinstance(refusal, InputError):
                raise refusal from None  # a dataclass refused a value, in a sentence of ours
            refusal = refusal.__context__
        for word in argv:
            if re.fullmatch(r"(--[\w-]+=)?\d[\d.e]*,[\d.e,]*", word):
                raise InputError(
                    f"{word!r} has commas: write numbers without, and several with spaces between."
                ) from error
        raise InputError(_sentence(printed.getvalue(), prog)) from error
    if extra:
        raise _unknown_option(kind, extra, prog)
    return made


def _cli(kind: type[T], argv: Sequence[str], prog: str, default: T | None) -> tuple[T, list[str]]:
    """Calls tyro; nested dataclasses' options have no prefix."""
    keywords: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(
        kind, args=list(argv), prog=prog, return_unknown_args=True, registry=REGISTRY,
        config=(tyro.conf.OmitArgPrefixes,), **keywords,
    )  # fmt: skip


def _sentence(text: str, prog: str) -> str:
    """Returns what a framed error message says, as one sentence.

    The frame holds a title, a rule, what is wrong, and after another rule what help there is.
    """
    lines = [re.sub(r"[│╭╮╰╯┌┐└┘|]", " ", line).strip() for line in text.splitlines()]
    rules = [index for index, line in enumerate(lines) if line and not line.strip("-─")]
    kept = lines[rules[0] + 1 : rules[1]] if len(rules) > 1 else []
    words = " ".join(" ".join(kept).split()).rstrip(".").replace(". Expected", ", expected")
    words = re.sub(r"^Error parsing (?=--)|^Error parsing [^:]*: ", "", words)
    missing = re.match(r"Missing from .*?(--[\w-]+)", words)
    if missing:
        words = f"The option {missing[1]} is missing"
    words = words[:1].upper() + words[1:]
    return f"{words or 'The options cannot be read'}: `{prog} --help` shows every option."


def _unknown_option(kind: type[Any], extra: list[str], prog: str) -> InputError:
    """Returns the error for the first word that no option takes."""
    word = next((word for word in extra if word.startswith("-")), extra[0])
    known = sorted(_names(kind))
    name = _name(word)
    # Without the dashes, which make all options alike.
    near = difflib.get_close_matches(name[2:], [one[2:] for one in known], n=1, cutoff=0.7)
    hint = f"did you mean '--{near[0]}'?" if near else f"`{prog} --help` shows every option."
    if not word.startswith("-") and "--task" in known:
        hint = f"did you mean '--task {word}'?"
    return InputError(f"There is no option {word!r}: {hint}")


def _name(word: str) -> str:
    """Returns the option that a word gives, `--NAME` or `--NAME=VALUE`, as help shows it."""
    return word.split("=")[0].replace("_", "-")


def _with_current_name(word: str, known: Sequence[str]) -> str:
    """Returns a word with an option of an earlier version or of another library under its name."""
    if not word.startswith("--"):
        return word
    name, sign, value = word[2:].replace("-", "_").partition("=")[0], *word.partition("=")[1:]
    option = option_name(name, [one[2:].replace("-", "_") for one in known])
    return word if option == name else f"--{option.replace('_', '-')}{sign}{value}"


def _names(kind: type[Any]) -> list[str]:
    """Returns the options of a dataclass and of those nested in it."""
    names: list[str] = []
    for name, hint in typing.get_type_hints(kind).items():
        if hasattr(hint, "__dataclass_fields__"):
            names += _names(hint)
        else:
            names.append("--" + name.replace("_", "-"))
    return names
