# SPDX-License-Identifier: Apache-2.0
"""Look-ups: chains can be followed, the tool answers, demonstrations keep to the facts."""

import re

import pytest

from guerdon.tasks import lookup
from guerdon.training.sources import contexts_of


def test_following_the_chain_gives_the_answer() -> None:
    for task in lookup.make_tasks(30, [2, 3, 4], seed=0):
        tool, thing = lookup.Tool(), task.prompt[0]["content"][1:]
        tool.reset(contexts_of([task])[0])
        for expected in task.fields["path"]:
            assert thing == expected
            thing = tool.step({"content": f"?{thing}"}).messages[0]["content"]
        assert thing == task.fields["answer"] and tool.step({"content": f"={thing}"}).terminated
        assert len(task.fields["path"]) == task.fields["hops"] == int(task.prompt[0]["content"][0])


@pytest.mark.parametrize("hops", [2, 3, 4])
def test_the_answer_is_one_of_as_many_things_as_the_module_says(hops: int) -> None:
    tasks = lookup.make_tasks(400, [hops], seed=1)
    away = {(int(t.fields["answer"][1]) - int(t.fields["path"][0][1])) % lookup.SIZE for t in tasks}
    assert len(away) == min(2 * hops + 1, lookup.SIZE)


@pytest.mark.parametrize("message", ["?e1", "b2", "?b2c4", "=", "?f0", ""])
def test_the_tool_says_so_where_there_is_nothing_to_say(message: str) -> None:
    tool = lookup.Tool()
    tool.reset(contexts_of(lookup.make_tasks(1, [2], seed=0))[0])
    step = tool.step({"content": message})
    assert [m["content"] for m in step.messages] == ["!"] and not step.terminated


def test_demonstrations_tell_the_facts_and_the_answer() -> None:
    tasks, shown = lookup.make_tasks(200, [2, 3], seed=4), lookup.demonstrations(200, [2, 3], seed=4, skill=0.5)
    useful = []
    for task, (prompt, text) in zip(tasks, shown, strict=True):
        assert prompt == task.prompt and text.endswith(f"={task.fields['answer']}")
        asked = re.findall(r"\?([a-e]\d)([a-e]\d|!)", text)
        assert text == "".join(f"?{x}{y}" for x, y in asked) + f"={task.fields['answer']}"
        assert all(task.fields["facts"].get(x, "!") == y for x, y in asked)
        useful.append(lookup.followed([x for x, _ in asked], task.fields["path"]))
    assert 0.5 < sum(useful) / len(useful) < 1.5  # a third of the look-ups come after the chain is done


def test_tasks_differ_by_seed_and_repeat() -> None:
    assert lookup.make_tasks(3, [2], 0) == lookup.make_tasks(3, [2], 0) != lookup.make_tasks(3, [2], 1)
