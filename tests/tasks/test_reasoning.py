# SPDX-License-Identifier: Apache-2.0
from decimal import Decimal

import pytest
import reasoning_gym

from guerdon.errors import InputError
from guerdon.tasks import load_tasks, reasoning_gym_score, tasks_from


def test_prompts_and_answers_are_the_library_s() -> None:
    entries = list(reasoning_gym.create_dataset("chain_sum", size=5, seed=11, max_terms=3))
    tasks = tasks_from("reasoning_gym:chain_sum", size=5, seed=11, max_terms=3)
    assert [task.prompt for task in tasks] == [entry["question"] for entry in entries]
    assert [task.fields["answer"] for task in tasks] == [entry["answer"] for entry in entries]
    assert [task.fields["metadata"] for task in tasks] == [entry["metadata"] for entry in entries]


def test_a_string_says_the_same() -> None:
    spec = "reasoning_gym:chain_sum?size=5&seed=11&max_terms=3"
    assert load_tasks(spec) == tasks_from("chain_sum", size=5, seed=11, max_terms=3)


def test_keys_are_stable_and_repeats_are_kept_once() -> None:
    few = tasks_from("chain_sum", size=60, seed=0, min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    entries = list(
        reasoning_gym.create_dataset("chain_sum", size=60, seed=0, min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    )
    distinct = {entry["question"] for entry in entries}
    assert len(distinct) < 60
    assert len(few) == len({task.key for task in few}) == len(distinct)
    assert {task.key for task in tasks_from("chain_sum", size=3, seed=0)} <= {
        t.key for t in tasks_from("chain_sum", size=9, seed=0)
    }


def test_draws_of_neighbouring_seeds_overlap_as_documented() -> None:
    def prompts(seed: int) -> list[str | list[dict]]:
        return [task.prompt for task in tasks_from("chain_sum", size=4, seed=seed)]

    assert prompts(0)[1:] == prompts(1)[:3]


@pytest.mark.parametrize("name", ["chain_sum", "countdown", "polynomial_equations", "sudoku", "zebra_puzzles"])
def test_scores_are_the_library_s(name: str) -> None:
    dataset = reasoning_gym.create_dataset(name, size=3, seed=5)
    entries = list(dataset)
    for task, entry in zip(tasks_from(name, size=3, seed=5), entries, strict=True):
        for completion in (str(entry["answer"]), "", "no idea", f"it is {entry['answer']}", entries[0]["answer"]):
            assert reasoning_gym_score(completion, prompt=task.prompt, **task.fields) == dataset.score_answer(completion, entry)


@pytest.mark.parametrize(("places", "score"), [(1, 1.0), (3, 0.0)])
def test_the_scorer_sees_the_settings(places: int, score: float) -> None:
    # This dataset takes an answer within one unit of the last decimal place, whose number is a setting.
    task = tasks_from("decimal_arithmetic", size=1, seed=2, min_num_decimal_places=1, max_num_decimal_places=places)[0]
    off = str(Decimal(str(task.fields["answer"])) + Decimal("0.05"))
    assert reasoning_gym_score(off, prompt=task.prompt, **task.fields) == score


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("reasoning_gym:chain_sun", "expected the name of a dataset, one like chain_sum"),
        ("reasoning_gym:qqqq", "expected the name of a dataset, one of 1"),
        ("reasoning_gym:chain_sum?max_term=3", "expected a setting among .*max_terms.*got 'max_term'"),
        ("reasoning_gym:chain_sum?size=many", "expected `size` to be an integer, got 'many'"),
        ("reasoning_gym:chain_sum?seed=0.5", "expected `seed` to be an integer, got 0.5"),
        ("reasoning_gym:chain_sum?min_terms=9&max_terms=3", "expected settings the dataset accepts, got .*max_terms must be"),
        ("reasoning_gym:chain_sum?size", "expected settings like"),
        ("chain_sum.json", "expected the path of a .jsonl file or reasoning_gym:NAME"),
    ],
)
def test_errors_say_what_was_expected(spec: str, said: str) -> None:
    with pytest.raises(InputError, match=rf"{said}.*Usual cause: "):
        load_tasks(spec)
