# SPDX-License-Identifier: Apache-2.0
"""Rollouts: what is filled in, what is refused, and that rows and fields stay together."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from guerdon.errors import InputError, ShapeError
from guerdon.rollouts import Field, Rollouts, as_messages, completion_text


def example() -> Rollouts:
    return Rollouts(
        action=torch.tensor([[5, 6, 7], [9, 0, 0], [8, 4, 0]]),
        mask=torch.tensor([[True, False, True], [True, False, False], [True, True, False]]),
        task=["b", "a", "b"],
        length=torch.tensor([3, 1, 2]),
        levels={"episode": torch.tensor([[0, 0, 1], [0, -1, -1], [0, 0, -1]])},
        groups={"episode": torch.tensor([[0, 1], [0, -1], [1, -1]])},
        parent=torch.tensor([[-1, -1], [0, 1], [-1, -1]]),
        fields={
            "answer": Field("task", ["x", "y", "z"]),
            "text": Field("episode", [["p", "q"], ["r"], ["s"]]),
            "pixels": Field("step", torch.arange(18).reshape(3, 3, 2)),
        },
        sampling={"temperature": 0.5},
    )


def test_what_is_not_given_is_filled_in() -> None:
    r = Rollouts(torch.zeros(3, 2), torch.ones(3, 2, dtype=torch.bool), ["b", "a", "b"], length=torch.tensor([2, 0, 1]))
    assert r.group.tolist() == [0, 1, 0]  # one group a task, in order of appearance
    assert r.level("step").tolist() == [[0, 1], [-1, -1], [0, -1]]
    assert r.level("turn").tolist() == r.level("episode").tolist() == [[0, 0], [-1, -1], [0, -1]]
    assert r.terminated.tolist() == r.truncated.tolist() == [[False, False]] * 3
    assert r.weight.tolist() == [1.0] * 3
    assert r.parent.tolist() == [[-1, -1]] * 3
    assert r.source == ["policy"] * 3
    assert r.log_prob is None
    assert Rollouts(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), ["a"]).length.tolist() == [2]


def test_units_and_values_by_hand() -> None:
    r = example()
    assert r.unit_counts("episode") == [2, 1, 1]
    assert list(r.units("episode")) == [(0, 0), (0, 1), (1, 0), (2, 0)]
    assert r.values_at("text", "episode") == ["p", "q", "r", "s"]
    assert r.values_at("answer", "episode") == ["x", "x", "y", "z"]
    assert r.values_at("text", "step") == ["p", "p", "q", "r", "s", "s"]
    assert [v.tolist() for v in r.values_at("pixels", "step")] == [[0, 1], [2, 3], [4, 5], [6, 7], [12, 13], [14, 15]]
    assert repr(r).startswith("Rollouts(3 rows x 3 steps, 5 taken; fields answer:task, text:episode, pixels:step")


def test_a_unit_that_lies_in_no_coarser_unit_has_no_value() -> None:
    r = example().with_level("line", torch.tensor([[0, 0, 1], [0, -1, -1], [0, 0, 1]]))
    with pytest.raises(InputError, match="`text` has no value for line 1 of row 2: that line lies in no episode"):
        r.values_at("text", "line")


@given(st.lists(st.integers(0, 2), max_size=5))
def test_rows_keep_everything_together(pick: list[int]) -> None:
    r = example()
    got = r.rows(pick)
    assert len(got) == len(pick)
    for new, old in enumerate(pick):
        for name in ("action", "mask", "terminated", "truncated", "length", "group", "weight", "parent"):
            assert getattr(got, name)[new].equal(getattr(r, name)[old]), name
        assert got.task[new] == r.task[old]
        assert got.levels["episode"][new].equal(r.levels["episode"][old])
        assert got.groups["episode"][new].equal(r.groups["episode"][old])
        assert got.fields["text"].values[new] == r.fields["text"].values[old]
        assert got.fields["pixels"].values[new].equal(r.fields["pixels"].values[old])
    assert got.sampling == r.sampling


def test_rows_by_a_mask_and_from_the_end() -> None:
    r = example()
    assert r.rows(torch.tensor([True, False, True])).task == r.rows([True, False, True]).task == ["b", "b"]
    assert r.rows([-1, 1]).fields["answer"].values == ["z", "y"]
    assert r.rows(torch.tensor([False] * 3)).action.shape == (0, 3)


def test_others_made_of_it_leave_it_as_it_was() -> None:
    r = example()
    more = r.with_level("line", torch.zeros(3, 3, dtype=torch.long)).with_field("note", "task", [1, 2, 3]).replace(task=["c"] * 3)
    assert "line" in more.levels
    assert "line" not in r.levels
    assert "note" not in r.fields
    assert r.task == ["b", "a", "b"]
    assert more.to("cpu").fields["pixels"].values.equal(r.fields["pixels"].values)
    half = r.replace(weight=torch.ones(3, dtype=torch.float64))
    assert half.rows([0]).weight.dtype == torch.float64


def test_shapes_are_checked() -> None:
    mask, action = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3)

    def refused(said: str, **changes) -> None:
        given = {"action": action, "mask": mask, "task": ["a", "b"], **changes}
        with pytest.raises(ShapeError, match=said):
            Rollouts(**given)

    refused(r"`action` should have shape \[N, T, ...\], got \[2\]", action=torch.zeros(2))
    refused(r"`mask` should have shape \[2, 3\], got \[2, 2\]", mask=mask[:, :2])
    refused(r"`mask` should be bool \(True counts\), got torch.float32", mask=mask.float())
    refused(r"`log_prob` should have shape \[2, 3\], got \[2, 3, 1\]", log_prob=torch.zeros(2, 3, 1))
    refused(r"`group` should have shape \[2\], got \[3\]", group=torch.zeros(3))
    refused("`task` should have one entry for each of 2 rows, got 1", task=["a"])
    refused(r"`parent` should have shape \[2, 2\], got \[2, 1\]", parent=torch.zeros(2, 1))
    refused("`source` should have one entry for each of 2 rows, got 3", source=["a"] * 3)
    refused(r"levels\['line'\]` should have shape \[2, 3\]", levels={"line": torch.zeros(2, 2, dtype=torch.long)})
    refused(r"field `answer` \(task\) should hold 2 rows, got 1", fields={"answer": Field("task", ["x"])})


def test_names_that_are_not_there() -> None:
    with pytest.raises(
        InputError, match=r"no level `line`; there are step, turn, episode\. Usual cause: its splitter was not run"
    ):
        example().level("line")
    with pytest.raises(InputError, match="no field `gold`; there are answer, text, pixels"):
        example().field("gold")


texts = st.lists(st.text(max_size=5), max_size=4)


@given(texts)
def test_characters_spell_the_completion(completions: list[str]) -> None:
    r = Rollouts.from_text(["?"] * len(completions), completions, steps="characters")
    assert r.values_at("completion", "episode") == completions
    for row, text in enumerate(completions):
        spans = r.field("offset").values[row].tolist()
        taken = [text[a:b] for (a, b), taken in zip(spans, r.mask[row].tolist(), strict=True) if taken]
        assert "".join(taken) == text
        assert all(0 <= a <= b <= len(text) for a, b in spans)  # (len, len) of what writes nothing
    assert r.mask.sum(1).tolist() == [max(len(t), 1) for t in completions]


@given(texts)
def test_a_text_is_one_step(completions: list[str]) -> None:
    r = Rollouts.from_text(["?"] * len(completions), completions, answer=completions)
    assert r.mask.tolist() == [[True]] * len(completions)
    assert r.field("offset").values.tolist() == [[[0, len(t)]] for t in completions]
    assert r.values_at("answer", "episode") == completions


def test_from_text_with_messages_and_plain_completions_together() -> None:
    reply = [{"role": "assistant", "content": "4"}]
    r = Rollouts.from_text(["2+2?", [{"role": "system", "content": "Be brief."}]], [reply, "five"], group=["g", "g"])
    assert r.values_at("completion", "episode") == ["4", "five"]
    assert r.values_at("messages", "episode") == [
        [{"role": "user", "content": "2+2?"}, *reply],
        [{"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "five"}],
    ]
    assert r.group.tolist() == [0, 0]
    assert "messages" not in Rollouts.from_text(["a"], ["b"]).fields


def test_from_text_says_what_is_wrong() -> None:
    with pytest.raises(InputError, match="`answer` should have one entry for each of 2 completions, got 1"):
        Rollouts.from_text(["a", "b"], ["c", "d"], answer=["x"])
    with pytest.raises(InputError, match="a string or a list of messages with a role and a content, got 3"):
        Rollouts.from_text(["a"], [3])
    with pytest.raises(InputError, match="list of messages"):
        completion_text([{"content": "no role"}])


def test_messages_of_a_prompt() -> None:
    assert as_messages("hi") == [{"role": "user", "content": "hi"}]
    chat = ({"role": "user", "content": "hi"},)
    assert as_messages(chat) == list(chat)


def test_a_slice_of_rows_is_those_rows() -> None:
    n = torch.arange(5)
    r = Rollouts(
        n[:, None].repeat(1, 3),
        torch.ones(5, 3, dtype=torch.bool),
        list("abcde"),
        log_prob=torch.rand(5, 3),
        length=torch.tensor([3, 2, 3, 1, 3]),
        levels={"line": torch.zeros(5, 3, dtype=torch.long)},
        fields={"x": Field("step", torch.rand(5, 3)), "answer": Field("task", list("vwxyz"))},
        sampling={"temperature": 1.0},
    )
    some, picked = r.rows(slice(1, 4)), r.rows(n[1:4])
    assert vars(some).keys() == vars(picked).keys() and (some.task, some.source) == (picked.task, picked.source)
    for name in ("action", "mask", "log_prob", "terminated", "length", "group", "weight", "parent"):
        assert torch.equal(getattr(some, name), getattr(picked, name)), name
    assert all(torch.equal(some.level(k), picked.level(k)) for k in picked.levels)
    assert torch.equal(some.field("x").values, picked.field("x").values) and some.field("answer").values == ["w", "x", "y"]
    assert some.sampling == r.sampling


@pytest.mark.parametrize("log_prob", [None, torch.rand(3, 3)])
def test_steps_are_rows_of_one_step(log_prob: torch.Tensor | None) -> None:
    r = example().replace(log_prob=log_prob, source=["x", "y", "z"], weight=torch.tensor([1.0, 2.0, 3.0]))
    r = r.with_field("action", "step", r.action)
    rows, steps = torch.tensor([2, 0, 0]), torch.tensor([1, 2, 0])
    some = r.steps(rows, steps)
    again = Rollouts(
        action=r.action[rows, steps][:, None],
        mask=r.mask[rows, steps][:, None],
        task=["b", "b", "b"],
        log_prob=None if log_prob is None else log_prob[rows, steps][:, None],
        group=r.group[rows],
        source=["z", "x", "x"],
        weight=r.weight[rows],
        fields={k: Field("step", r.field(k).values[rows, steps][:, None]) for k in ("pixels", "action")},
        sampling=r.sampling,
    )

    def told(x: Rollouts) -> dict:
        apart = {f"field {k}": f.values for k, f in x.fields.items()} | {f"level {k}": v for k, v in x.levels.items()}
        both = {**{k: v for k, v in vars(x).items() if k not in ("fields", "levels")}, **apart}
        return {k: (v.dtype, v.tolist()) if isinstance(v, torch.Tensor) else v for k, v in both.items()}

    assert told(some) == told(again) == told(some.replace())
    assert len(r.steps(rows[:0], steps[:0])) == 0
