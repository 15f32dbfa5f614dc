"""Command-line options from dataclasses: numbers, nesting, defaults, and one-sentence errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from rltransfer.agents import PPO
from rltransfer.cli.parsing import parse, parse_count
from rltransfer.errors import InputError, unknown
from rltransfer.policies.network import Network
from rltransfer.runs.config import RunOptions
from rltransfer.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is parsed here."""

    steps: int = 1_000_000
    """Environment steps in all."""
    rate: float = 1e-3
    kind: Literal["adam", "radam"] = "adam"
    quick: bool = False
    folder: Path | None = None
    seed: int | None = None
    sizes: tuple[int, ...] = (3,)
    epsilon: str | float | Schedule = "1->0"
    network: Network = Network()


@dataclass(frozen=True, kw_only=True)
class Required:
    task: str


PROG = "rltransfer train"
TAIL = f"; see `{PROG} --help`."


def parsed(*words: str) -> Options:
    return parse(Options, words, PROG)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2000000", 2_000_000),
        ("2_000_000", 2_000_000),
        ("2e6", 2_000_000),
        ("2E6", 2_000_000),
        ("1.5e3", 1500),
        ("4.0", 4),
        ("0", 0),
        ("-3", -3),
        # Beyond what a float64 holds exactly.
        ("9007199254740993", 9_007_199_254_740_993),
    ],
)
def test_counts(text: str, number: int):
    assert parse_count(text) == number
    assert type(parse_count(text)) is int
    assert parsed("--steps", text).steps == number


@pytest.mark.parametrize("text", ["1.5", "1e-1", "many", "nan", "inf", "1e999", "2e", "", "0x10"])
def test_counts_that_are_not_whole_numbers(text: str):
    with pytest.raises(ValueError, match="is not a whole number"):
        parse_count(text)
    with pytest.raises(InputError) as caught:
        parsed("--steps", text)
    assert str(caught.value) == f"--steps: {text!r} is not a whole number{TAIL}"


def test_defaults():
    assert parsed() == Options()
    given = Options(steps=5, network=Network(width=0.5))
    assert parse(Options, ["--rate", "0.5"], PROG, given) == Options(
        steps=5, rate=0.5, network=Network(width=0.5)
    )


def test_every_kind_of_option():
    found = parsed(
        "--steps=2e3", "--rate", "0.5", "--kind", "radam", "--quick", "--folder", "/x/y",
        "--seed", "1e3", "--sizes", "1e2", "7", "--epsilon", "1->0.05@0.1",
    )  # fmt: skip
    assert found == Options(
        steps=2000, rate=0.5, kind="radam", quick=True, folder=Path("/x/y"), seed=1000,
        sizes=(100, 7), epsilon="1->0.05@0.1",
    )  # fmt: skip


def test_flags_are_turned_on_and_off():
    assert parsed("--quick").quick and parsed("--no-normalize").network == Network(normalize=False)
    assert not parse(Options, ["--no-quick"], PROG, Options(quick=True)).quick
    with pytest.raises(InputError, match="There is no option 'yes'"):
        parsed("--quick", "yes")


def test_nested_options_have_no_prefix():
    found = parsed("--width", "0.5", "--hidden", "32", "16", "--layer-norm")
    assert found.network == Network(width=0.5, hidden=(32, 16), layer_norm=True)
    with pytest.raises(InputError, match=r"There is no option '--network.width'"):
        parsed("--network.width", "0.5")


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("--stpes", "--steps"),
        ("--epsilom=0.5", "--epsilon"),
        ("--layer_nrom", "--layer-norm"),
        ("--widht", "--width"),
    ],
)
def test_unknown_option_with_the_nearest(word: str, near: str):
    with pytest.raises(InputError) as caught:
        parsed(word, "4")
    assert str(caught.value) == f"There is no option {word!r}: did you mean {near!r}?"


@pytest.mark.parametrize(
    ("words", "steps"),
    [("--total-timesteps 4", 4), ("--total_timesteps=5", 5), ("--timesteps 2e3", 2000)],
)
def test_names_of_other_libraries_are_taken(words: str, steps: int):
    assert parsed(*words.split()).steps == steps


def test_former_names_and_names_of_other_libraries_train(tmp_path: Path):
    former = "--steps 9 --horizon 8 --discount 0.9 --trace 0.8 --clip 0.3"
    current = "--total-steps 9 --rollout-length 8 --gamma 0.9 --gae-lambda 0.8 --clip-range 0.3"
    others = "--total-timesteps 9 --n-steps 8 --gamma 0.9 --gae-lambda 0.8 --clip-coef 0.3"

    @dataclass(frozen=True)
    class Both:
        method: PPO = PPO()
        options: RunOptions = RunOptions()

    made = [parse(Both, words.split(), PROG) for words in (former, current, others)]
    assert made[0] == made[1] == made[2] != Both()
    assert made[0].options.total_steps == 9 and made[0].method.surrogate.gae_lambda == 0.8
    names = "--lr 1e-3 --ent-coef 0.5 --vf-coef 0.25 --n-envs 4 --n-epochs 2"
    method = parse(Both, names.split(), PROG).method
    assert (method.learning_rate, method.num_envs, method.epochs) == (1e-3, 4, 2)
    surrogate = method.surrogate
    assert (surrogate.entropy_coefficient, surrogate.value_coefficient) == (0.5, 0.25)
    with pytest.raises(InputError, match="'--total-steps' is given twice"):
        parse(Both, ["--steps", "9", "--total-timesteps", "9"], PROG)


@pytest.mark.parametrize("words", [["--xyzzy", "4"], ["--xyzzy"], ["--stop"], ["--lr", "1"]])
def test_unknown_option_with_none_near(words: list[str]):
    # Near only by its dashes and two letters; another name of an option that is not there.
    with pytest.raises(InputError) as caught:
        parsed(*words)
    assert str(caught.value) == f"There is no option {words[0]!r}{TAIL}"


@pytest.mark.parametrize(
    "words", [["--sizes", "1", "--sizes", "2"], ["--layer-norm", "--rate=1", "--layer_norm"]]
)
def test_an_option_is_given_once(words: list[str]):
    with pytest.raises(InputError, match=f"The option '{words[0]}' is given twice"):
        parsed(*words)


@pytest.mark.parametrize(
    "words",
    [["--sizes", "64,32"], ["--hidden=64,32"], ["--hidden", "64,", "32"], ["--steps=1,000"]],
)
def test_numbers_have_no_commas(words: list[str]):
    with pytest.raises(InputError, match="write numbers without commas, and several with sp"):
        parsed(*words)


def test_word_that_belongs_to_no_option():
    with pytest.raises(InputError, match="There is no option 'pong'"):
        parsed("pong")


@pytest.mark.parametrize("columns", ["30", "200"])
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--rate", "fast"], f"--rate: could not convert string to float: 'fast'{TAIL}"),
        (
            ["--kind", "sgd"],
            "There is no --kind 'sgd': there are adam, radam.",
        ),
        (["--steps"], f"The option --steps needs a value{TAIL}"),
    ],
)
def test_errors_are_one_sentence(
    words: list[str], sentence: str, columns: str, monkeypatch: pytest.MonkeyPatch
):
    # Whatever the terminal's width, at which the message is broken.
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(InputError) as caught:
        parsed(*words)
    assert str(caught.value) == sentence


def test_what_a_dataclass_refuses_is_its_own_sentence():
    with pytest.raises(InputError) as caught:
        parsed("--width", "0")
    assert str(caught.value) == "A network's width is 0.0: it must be finite and above 0."


def test_missing_option():
    with pytest.raises(InputError) as caught:
        parse(Required, [], PROG)
    assert str(caught.value) == f"--task is missing{TAIL}"


def test_an_unknown_name_with_all_that_there_are_or_who_lists_them():
    names = [f"{number}" * 4 for number in range(10)] + list("abc")
    assert str(unknown("task", "xyzzy", names, "list tasks")).endswith(
        ": `list tasks` lists them all."
    )
    assert str(unknown("task", "xyzzy", names)).endswith("9999, a, b, c.")
    assert str(unknown("task", "xyzzy", ["a"], "list tasks")).endswith(": there are a.")
    assert str(unknown("task", "Pong", ["ALE/Pong-v5", "a"])).endswith(
        "did you mean 'ALE/Pong-v5'?"
    )
    assert str(unknown("task", "ABBC", ["abbb"])).endswith("did you mean 'abbb'?")


def test_errors_print_nothing(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(InputError):
        parsed("--steps", "many")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_shows_fields_and_defaults(word: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        parsed(word)
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for words in ("--steps", "Environment steps in all.", "1000000", "--layer-norm", PROG):
        assert words in shown
