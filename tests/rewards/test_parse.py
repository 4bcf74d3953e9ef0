# SPDX-License-Identifier: Apache-2.0
"""Text to reward: what is read, and how a mistake is shown."""

from __future__ import annotations

import pytest

from guerdon.errors import ExpressionError
from guerdon.rewards import linear, max_of, min_of, parse
from tests.rewards.leaves import LINE, TABLE, A, B, Told, told


def tuned(tolerance: float = 0.0, kind: str = "plain", over: tuple = ()) -> Told:
    """A factory with arguments, as the built-in checkers are."""
    given = {"tolerance": tolerance, "kind": kind, "over": over}
    if tolerance < 0:
        raise ExpressionError("tuned: `tolerance` should be 0 or more.")
    return told("tuned", version=repr(given))


NAMES = {**TABLE, "tuned": tuned}


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("a", A),
        ("a()", A),
        (" a\n + b ", A + B),
        ("0.2*a - b", 0.2 * A - B),
        ("a - 0.25 * b - -a", A - 0.25 * B + A),
        ("-(a + b) * 2", -2 * (A + B)),
        ("+a / 4", A / 4),
        ("2 * 3 * a", 6 * A),
        ("0.5 * linear(0, 1, 100) * a", linear(0, 0.5, 100) * A),
        ("a * constant(0.5)", 0.5 * A),
        ("a * b * line_a", A * B * LINE),
        ("min_of(a, max_of(b, line_a))", min_of(A, max_of(B, LINE))),
        (
            "line_a.gate(on=a + b, above=0.25).clip(0, 1).pool('mean', 'turn')",
            LINE.gate(on=A + B, above=0.25).clip(0, 1).pool("mean", "turn"),
        ),
        ("a.gate(on=b, softness=0.5)", A.gate(on=B, softness=0.5)),
        ("a.otherwise(b).named('x').watch()", A.otherwise(B).named("x").watch()),
        ("a.normalise(scale=False).shuffled(-3)", A.normalise(scale=False).shuffled(-3)),
        ("a.clip(high=1)", A.clip(high=1)),
        ("a.clip(None, -1)", A.clip(None, -1)),
    ],
)
def test_what_is_read(text, reward) -> None:
    assert parse(text, NAMES) == reward
    assert parse(str(reward), NAMES) == reward


@pytest.mark.parametrize(
    ("reward", "text"),
    [
        (A - 0.2 * B, "a - 0.2 * b"),
        (-(A + B), "-(a + b)"),
        (A * (A + B) * 2, "2 * a * (a + b)"),
        ((A + B).clip(0, 1), "(a + b).clip(0, 1)"),
        (-A.clip(0, 1), "-a.clip(0, 1)"),
        ((-A).clip(0, 1), "(-a).clip(0, 1)"),
        (linear(0, 1, 9) * (linear(0, 1, 3) * A), "linear(0, 1, 9) * (linear(0, 1, 3) * a)"),
        (sum([A, B, LINE]), "a + b + line_a"),
        (0.5 * A.watch() + B, "(0.5 * a).watch() + b"),
        (LINE.gate(on=A), "line_a.gate(on=a, above=0.5)"),
    ],
)
def test_how_it_is_written(reward, text) -> None:
    assert str(reward) == text
    assert parse(text, NAMES) == reward


def test_literal_arguments_reach_the_factory() -> None:
    found = parse("tuned(0.5, kind='a + b', over=(1, -2))", NAMES)
    assert found.version == repr({"tolerance": 0.5, "kind": "a + b", "over": (1, -2)})


@pytest.mark.parametrize(
    ("text", "under", "says"),
    [
        ("a + c", "c", "no reward is called `c`; there are a, b"),
        ("a + tund", "tund", "did you mean tuned"),
        ("a + min_off(a, b)", "min_off", "did you mean min_of"),
        ("a ** b", "**", "operators"),
        ("(a) % b", "%", "operators"),
        ("a < b", "a < b", "expected a reward"),
        ("a and b", "a and b", "expected a reward"),
        ("a.clap(0, 1)", "clap", r"did you mean \.clip"),
        ("a.score(1)", "score", "no method `score`"),
        ("a.__class__", "__class__", "called with parentheses"),
        ("a.gate(0.5)", "0.5", "expected a reward"),
        ("a.gate(on=line_a)", "gate", "finer"),
        ("a + line_a.clip(0, 1, 2)", "clip", r"\.clip\(low=None, high=None\): too many positional"),
        ("a.named(name=b)", "b)", "text in quotes"),
        ("b + tuned(tollerance=1)", "tuned", "tollerance"),
        ("b + tuned(-1)", "tuned", "0 or more"),
        ("b + tuned(**a)", "a)", r"\*\*"),
        ("min_of(a)", "min_of", "two rewards or more"),
        ("min_of(a, key=b)", "key", "no keyword"),
        ("a + 1", "+", "no units"),
        ("'text' * a", "'text'", "expected a reward"),
        ("True * a", "True", "got True"),
        ("a[0]", "a[0]", "expected a reward"),
        ("[x for x in a]", "[x", "expected a reward"),
        ("(lambda: a)()", "lambda", "only names"),
        ("a +", "", "cannot be read"),
        ("a b", "", "cannot be read"),
        ("1 / 0 * a", "/", "division by zero"),
        ("linear(0, 1, 0) * a", "linear", "1 or more"),
        ("linear(0, 1, 5) * linear(0, 1, 5) * a", "*", "unsupported"),
        ("tuned(kind='é') + c", "c", "no reward is called `c`"),
    ],
)
def test_a_mistake_is_shown_in_its_place(text, under, says) -> None:
    with pytest.raises(ExpressionError, match=says) as caught:
        parse(text, NAMES)
    message, shown, caret = str(caught.value).split("\n")
    assert message.startswith("reward expression:")
    assert text in shown
    if under:
        assert shown[caret.index("^") :].startswith(under)


@pytest.mark.parametrize(
    "text", ["", "  ", "3", "linear(0, 1, 5)", "a" + " + a" * 9000, "(" * 900 + "a", "-" * 3000 + "a", "a" + ".watch()" * 500]
)
def test_odd_texts_are_refused(text) -> None:
    with pytest.raises(ExpressionError, match="reward expression"):
        parse(text, NAMES)


def test_long_sums_are_read() -> None:
    assert str(parse(" + ".join(["a"] * 800), NAMES)) == " + ".join(["a"] * 800)


def test_nothing_is_executed(tmp_path) -> None:
    trace = tmp_path / "ran"
    for text in (
        f"__import__('pathlib').Path({str(trace)!r}).touch()",
        f"tuned(open({str(trace)!r}, 'w'))",
        f"(a := open({str(trace)!r}, 'w'))",
    ):
        with pytest.raises(ExpressionError):
            parse(text, NAMES)
    assert not trace.exists()


# ---- path.py:name

OWN = """
from guerdon.rewards import Reward
from guerdon.scores import Component
from tests.rewards.leaves import A, told

leaf = told("leaf")
whole = leaf + 0.5 * A
number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("my-dir", "with space"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text(OWN)
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


@pytest.mark.parametrize(
    "path", ["own.py:leaf", "./own.py:leaf", "my-dir/own.py:leaf", "./my-dir/../own.py:leaf", "{abs}/own.py:leaf"]
)
def test_a_users_own_is_found_by_its_path(own, path) -> None:
    path = path.format(abs=own)
    reward = parse(f"a + 0.2*{path}.gate(on={path},above=0.5)", NAMES)
    assert str(reward) == f"a + 0.2 * {path}.gate(on={path}, above=0.5)"
    assert parse(str(reward), NAMES) == reward
    assert reward.parts[1].parts[0].parts[0].name == "leaf"


def test_a_path_with_spaces_is_quoted(own) -> None:
    reward = parse("a + 'with space/own.py:leaf'", NAMES)
    assert str(reward) == "a + 'with space/own.py:leaf'"
    assert parse(str(reward), NAMES) == reward


def test_a_path_inside_a_string_stays_text(own) -> None:
    assert "own.py:leaf" in parse("tuned(kind='own.py:leaf')", NAMES).version


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a + other.py:leaf", "no file other.py"),
        ("a + own.py:lief", "defines no `lief`; it has leaf"),
        ("a + own.py:number", "function or a Reward, got int"),
        ("a + own.py:leaf(3)", "takes no arguments"),
    ],
)
def test_mistakes_in_paths(own, text, says) -> None:
    with pytest.raises(ExpressionError, match=says) as caught:
        parse(text, NAMES)
    _, shown, caret = str(caught.value).split("\n")
    assert shown[caret.index("^") :].startswith(text[4:].split("(")[0])


def test_a_changed_file_is_read_again(own) -> None:
    before = parse("own.py:leaf", NAMES)
    (own / "own.py").write_text(OWN.replace('told("leaf")', 'told("leaf", version="2")'))
    assert before.version == ""
    assert parse("own.py:leaf", NAMES).version == "2"


def test_places_after_a_path_are_right(own) -> None:
    with pytest.raises(ExpressionError, match="`nope`") as caught:
        parse("own.py:leaf + ./my-dir/own.py:leaf * nope", NAMES)
    _, shown, caret = str(caught.value).split("\n")
    assert shown[caret.index("^") :] == "nope"


def test_an_unchanged_file_is_run_once(own) -> None:
    (own / "own.py").write_text(OWN + "from pathlib import Path\nwith Path('ran').open('a') as f:\n    f.write('x')\n")
    assert parse("own.py:leaf + ./own.py:leaf", NAMES).parts[0].name == "leaf"
    assert (own / "ran").read_text() == "x"
