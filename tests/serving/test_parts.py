# SPDX-License-Identifier: Apache-2.0
"""What a server is made of: items scored alike, requests batched together, limits."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from guerdon import checkers, reward
from guerdon.errors import InputError
from guerdon.rewards import Reward, parse
from guerdon.serving import limits
from guerdon.serving.batching import Batcher, Closed, QueueFull
from guerdon.serving.limits import RateLimit, same_token
from guerdon.serving.metrics import Metrics
from guerdon.serving.schema import Item, Judged, Scored
from guerdon.serving.scoring import Ask, Scorer, info_of, version_of
from tests.serving.rewards import anything, matches, size, traps


def asks(*completions: str, step: int = 0, **fields) -> list[Ask]:
    return [Ask(Item(completion=c, fields=fields), step) for c in completions]


def totals(scored: list[Scored]) -> list:
    return [(s.total.value, s.total.status) for s in scored]


# ---- scoring


def test_an_item_gets_what_the_reward_says_of_it() -> None:
    expression = matches + 0.5 * size - checkers.length().watch()
    scored = Scorer(expression)(asks("four", "five", answer="four"))
    scores = expression(completions=["four", "five"], answer=["four", "four"])
    assert totals(scored) == [(3.5, "ok"), (2.0, "ok")] == [(v, "ok") for v in scores.total.values[:, 0].tolist()]
    assert {k: v.value for k, v in scored[0].parts.items()} == {"matches": 1.5, "size": 4.0, "length": 4.0}


def test_what_is_not_ok_has_a_status_and_a_reason_and_no_value() -> None:
    none, raised, fine = Scorer(traps)(asks("none", "raise", "fine"))
    assert none.total == Judged(value=None, status="abstain", reason="returned None")
    assert raised.total.status == "error" and raised.total.value is None and "no such thing" in raised.total.reason
    assert fine.total == Judged(value=4.0, status="ok")


def test_a_missing_argument_is_its_default_whoever_asks_beside() -> None:
    """A field that one item has must not make it None for another that was batched with it."""
    items = [Ask(Item(completion="a", fields={"answer": "a", "bonus": 2})), Ask(Item(completion="a", fields={"answer": "a"}))]
    assert totals(Scorer(matches)(items)) == [(3.0, "ok"), (1.5, "ok")]


def test_steps_of_schedules_are_kept_apart() -> None:
    scorer = Scorer(parse("linear(0, 1, 10)*length"))
    assert totals(scorer([*asks("abcd", step=0), *asks("abcd", step=5), *asks("ab", step=20)])) == [
        (0.0, "ok"),
        (2.0, "ok"),
        (2.0, "ok"),
    ]


def test_an_item_that_breaks_a_call_is_lost_alone() -> None:
    class Breaks(Reward):
        def compute(self, rollouts, parts, step):
            texts = rollouts.values_at("completion", "episode")
            if "bad" in texts:
                raise TypeError("a fault of the reward's own")
            return size.compute(rollouts, parts, step)

    scored = Scorer(Breaks(name="size"))(asks("ab", "bad", "abc", "abcd", "a"))
    assert totals(scored) == [(2.0, "ok"), (None, "error"), (3.0, "ok"), (4.0, "ok"), (1.0, "ok")]
    assert scored[1].total.reason == "TypeError: a fault of the reward's own"


def test_a_reward_that_compares_sees_its_request_as_one() -> None:
    scorer = Scorer(size.normalise(over="group", scale=False))
    assert scorer.compares
    items = [Item(prompt="p", completion="a" * n) for n in (1, 3)] + [
        Item(completion="a", group=1),
        Item(completion="aaa", group=1),
    ]
    assert totals(scorer([Ask(i) for i in items])) == [(-1.0, "ok"), (1.0, "ok")] * 2
    assert Scorer(size.normalise(over="group"))(asks("a", "aa"))[0].total.status == "abstain"  # no prompt, no group: alone


def test_finer_rewards_are_summed_over_the_item() -> None:
    lines = reward(level="line", split=r"\n", bounds=(0, 9))(lambda line: float(len(line)))
    scorer = Scorer(lines)
    assert totals(scorer(asks("ab\nabc", "a"))) == [(6.0, "ok"), (1.0, "ok")]  # a line has its end
    assert scorer.info.level == "line" and scorer.info.bounds == (0.0, None)


def test_chat_and_text_may_be_mixed() -> None:
    chat = Item.model_validate(
        {"prompt": [{"role": "user", "content": "2+2"}], "completion": [{"role": "assistant", "content": "4"}]}
    )
    assert totals(Scorer(size)([Ask(chat), *asks("123")])) == [(1.0, "ok"), (3.0, "ok")]


def test_fields_are_named_where_they_are_wrong() -> None:
    scorer = Scorer(matches + size)
    assert scorer.problems([Item(completion="x", fields={"answer": "x", "bonus": 1})]) == []
    found = scorer.problems([Item(completion="x", fields={"answer": 1}), Item(completion="x", fields={"anwser": 1})])
    assert [field for field, _ in found] == ["items[1].fields.answer", "items[1].fields.anwser"]
    assert Scorer(anything).problems([Item(completion="x", fields={"a": 1})]) == []
    assert Scorer(anything).problems([Item(completion="x", fields={"task": 1})])[0][0] == "items[0].fields.task"
    assert totals(Scorer(anything)(asks("x", a=1, b=2))) == [(3.0, "ok")]


def test_what_a_reward_says_of_itself() -> None:
    info = info_of(matches + 0.5 * size)
    assert (info.required, info.optional, info.open) == (["answer"], ["bonus"], False)
    assert info.parts == {"matches": 1.0, "size": 0.5} and info.relation == "self"
    assert info_of(size).bounds == (0.0, 10.0)
    assert version_of(size) != version_of(size * 2) and version_of(size) == version_of(size.with_budget(1))


@pytest.mark.parametrize("text", ["environment", "exact + 0.1*kl"])
def test_what_has_no_text_is_not_served(text: str) -> None:
    with pytest.raises(InputError, match="expected a reward of prompts, completions and fields"):
        Scorer(parse(text))


# ---- batching


class Slow:
    """Scores when it is let, and notes the calls."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.begun, self.let = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, asked) -> list[Scored]:
        self.calls.append([str(a.item.completion) for a in asked])
        self.begun.release()
        assert self.let.acquire(timeout=30)
        return [Scored(total=Judged(value=float(len(a.item.completion)), status="ok"), parts={}) for a in asked]


def batcher(score, **settings) -> Batcher:
    return Batcher(score, Metrics(), **{"max_batch": 4, "max_wait": 0.0, "max_queue": 100, **settings})


def test_what_gathers_while_a_batch_is_scored_is_the_next_batch() -> None:
    slow = Slow()
    b = batcher(slow)
    first = b.submit(asks("a"))
    assert slow.begun.acquire(timeout=30)
    rest = [b.submit(asks(*words)) for words in (["bb"], ["ccc", "d"], ["ee"], ["f"])]
    assert b.queued == 5 and b.scoring_for() > 0
    slow.let.release(2)
    assert [[v for v, _ in totals(f.result(30))] for f in (first, *rest[:3])] == [[1.0], [2.0], [3.0, 1.0], [2.0]]
    assert not rest[3].done()
    slow.let.release()
    assert totals(rest[3].result(30)) == [(1.0, "ok")]
    assert slow.calls == [["a"], ["bb", "ccc", "d", "ee"], ["f"]]  # four at most
    b.close(30)


def test_a_request_waits_for_company_until_the_batch_is_full() -> None:
    slow = Slow()
    b = batcher(slow, max_wait=3600.0)
    futures = [b.submit(asks("a", "b"))]
    assert not slow.begun.acquire(timeout=0.2)
    futures.append(b.submit(asks("c", "d")))
    slow.let.release()
    assert all(f.result(30) for f in futures) and slow.calls == [["a", "b", "c", "d"]]
    b.close(0)


def test_a_request_larger_than_a_batch_is_scored_in_pieces_and_one_that_compares_in_one() -> None:
    for alone, expected in ((False, [["a", "b", "c", "d"], ["e"]]), (True, [["a", "b", "c", "d", "e"], ["f"]])):
        slow = Slow()
        slow.let.release(5)
        b = batcher(slow, alone=alone)
        first = b.submit(asks(*"abcde"))
        assert len(first.result(30)) == 5
        if alone:
            b.submit(asks("f")).result(30)
        assert slow.calls == expected
        b.close(30)


def test_a_request_that_nobody_waits_for_is_not_scored() -> None:
    slow = Slow()
    b = batcher(slow)
    b.submit(asks("a"))
    assert slow.begun.acquire(timeout=30)
    gone, kept = b.submit(asks("gone")), b.submit(asks("kept"))
    assert gone.cancel() and b.queued == 1
    slow.let.release(2)
    kept.result(30)
    assert slow.calls == [["a"], ["kept"]]
    b.close(30)


def test_a_full_queue_and_a_closed_one_take_nothing() -> None:
    slow = Slow()
    b = batcher(slow, max_queue=2)
    b.submit(asks("a"))
    assert slow.begun.acquire(timeout=30)
    waiting = b.submit(asks("b", "c"))
    with pytest.raises(QueueFull):
        b.submit(asks("d"))
    slow.let.release(2)
    b.close(30)
    assert totals(waiting.result(0)) == [(1.0, "ok")] * 2  # what waited was scored before it closed
    with pytest.raises(Closed):
        b.submit(asks("d"))


def test_a_fault_while_scoring_reaches_those_who_wait_and_the_next_batch_is_scored() -> None:
    def faulty(asked):
        if asked[0].item.completion == "bad":
            raise RuntimeError("no")
        return [Scored(total=Judged(value=1.0, status="ok"), parts={})]

    b = batcher(faulty)
    with pytest.raises(RuntimeError, match="no"):
        b.submit(asks("bad")).result(30)
    assert totals(b.submit(asks("good")).result(30)) == [(1.0, "ok")]
    b.close(30)


# ---- limits


def test_the_rate_is_one_clients_own_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KNOWN", 2)
    limit = RateLimit(1.0, 1, clock=lambda: 0.0)
    assert [limit.wait(c) for c in "aab"] == [0.0, 1.0, 0.0]
    assert limit.wait("c") == 0.0 and len(limit.clients) == 2
    with pytest.raises(InputError, match="rate limit should be above 0"):
        RateLimit(0.0, 1)


def test_tokens() -> None:
    assert same_token("Bearer s3cret", "s3cret") and same_token("bearer s3cret", "s3cret")
    assert not any(same_token(h, "s3cret") for h in ("", "s3cret", "Bearer", "Bearer s3cre", "Basic s3cret", "Bearer s3crét"))


def test_served_functions_are_found_by_path() -> None:
    assert str(parse(f"{Path(__file__).parent / 'served.py'}:size")).endswith("served.py:size")
