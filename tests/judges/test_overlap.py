# SPDX-License-Identifier: Apache-2.0
"""A judge that answers while the policy still draws: the same verdicts, nothing asked twice, and nothing left behind."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from guerdon.credit import group_relative
from guerdon.errors import InputError, RewardFailure
from guerdon.judges import asking, judge, judge_wins, judging
from guerdon.judges.inquiry import Inquiry
from guerdon.objectives import clipped_surrogate, token_mean
from guerdon.policies.language import LanguagePolicy
from guerdon.protocols import Context, Sampling
from guerdon.rewards import Reward, reward
from guerdon.rollouts import Rollouts
from guerdon.training.loop import train
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Prompts
from tests.judges.server import Say, Server, serving, verdicts
from tests.training.table import Table

PATIENCE = 20.0
"""Seconds after which a test that waits for what does not come is red."""

PROMPTS = ["p", "q", "r", "s"]
CONTEXTS = [Context(p, p) for p in PROMPTS]


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(judging, "SLOW", 0.0)


def grade(items: list[dict], _: int = 1) -> str:
    """Ten less the answer's length, and one more for each `b`."""
    return verdicts(items, score=lambda x: 10 - len(x["answer"]) + x["answer"].count("b"))


def troubled(items: list[dict], _: int = 1) -> Say | str:
    """Refuses requests that hold an answer with `cc`, and says nothing of the answers that end in `a`."""
    if any("cc" in x["answer"] for x in items):
        return Say(code=400, raw=b'{"error": "no such answer"}')
    return grade([x for x in items if not x["answer"].endswith("a")])


def longer(items: list[dict], _: int = 1) -> str:
    def better(x: dict) -> str:
        a, b = len(x["first"]), len(x["second"])
        return "tie" if a == b else "first" if a > b else "second"

    return verdicts(items, better=better)


def source(r: Reward | None) -> Prompts:
    return Prompts(CONTEXTS, 4, 3, Sampling(4), ready=None if r is None else r.begin)


def row(*answers: str) -> Rollouts:
    return Rollouts.from_text(["p"] * len(answers), list(answers))


def no_thread_is_left() -> bool:
    for thread in threading.enumerate():
        if thread.name.startswith("judge-"):
            thread.join(PATIENCE)
    return not any(t.name.startswith("judge-") for t in threading.enumerate())


# ---- overlap


def test_the_judge_answers_for_a_row_that_has_ended_while_others_are_drawn() -> None:
    """The policy draws on once the judge has answered for the first rows, which answers once the policy draws again."""
    drawing, answered, told = threading.Event(), threading.Event(), []

    def script(items: list[dict], _: int) -> str:
        assert drawing.wait(PATIENCE)
        answered.set()
        return grade(items)

    def ready(rollouts: Rollouts) -> None:
        if told:
            drawing.set()
            assert answered.wait(PATIENCE), "the judge did not answer while the policy drew"
        told.append(rollouts)
        r.begin(rollouts)

    with serving(script) as server:
        r = judge(server.url, model="m", attempts=1)
        policy = LanguagePolicy.tiny([*"abpqrs"], width=16, layers=1, heads=2, dtype=torch.float64, seed=3)
        rollouts = Prompts(CONTEXTS, 4, 3, Sampling(12), ready=ready).batch(0, policy, 0).rollouts
        scores = r.score(rollouts)
    assert len(told) > 2 and bool(scores.total.ok.all())
    assert [int(x.length[0]) for x in told] == sorted(set(rollouts.length.tolist()))
    ended = sorted((x.task[n], x.values_at("completion", "episode")[n]) for x in told for n in range(len(x)))
    assert ended == sorted(zip(rollouts.task, rollouts.values_at("completion", "episode"), strict=True))
    assert len(server.requests) == r.tally.requests == r.tally.items == len({(x["prompt"], x["answer"]) for x in server.items()})


@pytest.mark.parametrize("stop", [(), ("ab",)])
def test_rows_that_are_told_are_the_rows_of_the_batch(stop: tuple[str, ...]) -> None:
    told: list[Rollouts] = []
    contexts = [Context(p, p, {"answer": i} | ({"hint": "x"} if i else {})) for i, p in enumerate(PROMPTS)]
    policy = LanguagePolicy.tiny([*"abpqrs"], width=16, layers=1, heads=2, dtype=torch.float64, seed=3)
    whole = Prompts(contexts, 4, 3, Sampling(12, stop=stop), ready=told.append).batch(0, policy, 0).rollouts
    assert sum(map(len, told)) == len(whole)
    place = {(whole.group[n].item(), tuple(whole.action[n][whole.mask[n]].tolist())): n for n in range(len(whole))}
    for part in told:
        at = [place[part.group[i].item(), tuple(part.action[i][part.mask[i]].tolist())] for i in range(len(part))]
        same, width = whole.rows(torch.tensor(at)), part.mask.shape[1]
        for name in ("mask", "log_prob", "terminated", "truncated"):
            assert torch.equal(getattr(part, name), getattr(same, name)[:, :width]), name
        assert (part.task, part.length.tolist()) == (same.task, same.length.tolist())
        for name in ("prompt", "completion", "answer", "context_ids"):
            assert part.field(name).values == same.field(name).values, name


# ---- the same results


def trained(server: Server, directory: Path, overlap: bool, make: Callable[..., Any] = judge, **settings: Any) -> tuple[Any, ...]:
    """Of a run of two steps: the policy, the lines of metrics without clocks, values and reasons, the tally, what was asked."""
    r, told, reasons, before = make(server.url, model="m", concurrency=4, **settings), [], [], len(server.requests)

    class Lines:
        def start(self, *_: Any) -> None: ...
        def finish(self, *_: Any) -> None: ...
        def metrics(self, step: int, metrics: Any) -> None:
            told.append({k: v for k, v in metrics.items() if "seconds" not in k and not k.startswith(("time/", "tokens_per"))})

    class Kept:
        needs = r.needs

        def score(self, rollouts: Rollouts, *, step: int = 0) -> Any:
            scores = r.score(rollouts, step=step)
            reasons.append((scores.total.values.tolist(), scores.total.status.tolist(), scores.total.reasons))
            return scores

    policy = Table(PROMPTS, seed=4)
    stage = Stage(
        "train",
        2,
        source(r if overlap else None),
        [Term(1.0, clipped_surrogate, token_mean)],
        reward=Kept(),  # type: ignore[arg-type]
        credit=group_relative,
        lr=2.0,
        max_failed=1.0,
    )
    train(Recipe("test", lambda: policy, [stage], save_rollouts_every=0), directory, [Lines()])
    asked = sorted(q["messages"][0]["content"] for q in server.requests[before:])
    assert "nan" not in str(policy.logits.tolist())
    return policy.logits.tolist(), json.dumps(told), str(reasons), r.tally, asked


@pytest.mark.parametrize("script", [grade, troubled])
@pytest.mark.parametrize("together", [1, 3])
def test_a_run_with_overlap_is_the_run_without(script: Any, together: int, tmp_path: Path) -> None:
    """But for what shares a request, where several items do."""
    with serving(script) as server:
        runs = [trained(server, tmp_path / f"{overlap}", overlap, together=together) for overlap in (False, True)]
    assert runs[0] == runs[1] if together == 1 else script is troubled or runs[0][:4] == runs[1][:4]
    _, _, reasons, tally, _ = runs[1]
    assert tally.items > 15
    assert script is grade or (tally.unparsed and tally.errors and "HTTP 400: no such answer" in reasons)


def test_a_run_with_a_cache_is_the_same_too(tmp_path: Path) -> None:
    with serving(grade) as server:
        first, again, other = (
            trained(server, tmp_path / name, overlap, cache=str(tmp_path / f"{file}.sqlite"))
            for name, file, overlap in (("a", "one", False), ("b", "one", True), ("c", "two", True))
        )
    assert first == other and first[:3] == again[:3]
    assert again[3].requests == 0 and again[3].cached == again[3].items == first[3].items


@pytest.mark.parametrize("together", [1, 2])
def test_pairs_are_the_same_too(together: int, tmp_path: Path) -> None:
    with serving(longer) as server:
        runs = [trained(server, tmp_path / f"{overlap}", overlap, judge_wins, together=together) for overlap in (False, True)]
        wins = judge_wins(server.url, model="m", together=together)
        wins.begin(Rollouts.from_text(["p", "p"], ["a", "b"], group=[0, 0]))
        assert bool(wins.pairs.judge.begun) == wins.begins == (together == 1)
    assert runs[0] == runs[1]


def test_what_is_too_little_for_a_request_waits_for_more() -> None:
    with serving(grade) as server:
        r = judge(server.url, model="m", together=3)
        r.begin(row("a", "aa"))
        assert not server.requests and not r.judge.begun[next(iter(r.judge.begun))].replies
        r.begin(row("aa", "aaa", "aaaa"))
        r.score(row("a", "aa", "aa", "aaa", "aaaa"))
    assert sorted(len({x["answer"] for x in _items(q)}) for q in server.requests) == [1, 3]
    assert {x["answer"] for x in _items(next(q for q in server.requests if len(_items(q)) == 3))} == {"a", "aa", "aaa"}


def _items(request: dict) -> list[dict]:
    return [json.loads(x) for x in request["messages"][0]["content"].partition("\nItems:\n")[2].splitlines()]


# ---- used once, and then forgotten


def test_what_was_begun_is_used_for_one_scoring() -> None:
    with serving(grade) as server:
        r = judge(server.url, model="m")
        for n in range(1, 4):
            r.begin(row("a", "b"))
            r.begin(row("b", "c"))
            r.score(row("a", "b", "c"))
            assert len(server.requests) == 3 * n and not r.judge.begun
        r.score(row("a"))
        assert len(server.requests) == 10
    assert no_thread_is_left()


def test_what_was_begun_and_is_not_scored_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    release, keep = threading.Event(), Inquiry._keep_only

    def script(items: list[dict], _: int) -> str:
        assert release.wait(PATIENCE)
        return grade(items)

    def dropped_then_released(self: Inquiry, wanted: set[str]) -> None:
        keep(self, wanted)
        release.set()

    monkeypatch.setattr(Inquiry, "_keep_only", dropped_then_released)
    with serving(script) as server:
        r = judge(server.url, model="m", concurrency=1, attempts=1)
        r.begin(row("a", "aa", "aaa"))
        r.score(row("a", "aaaa"))
        assert [x["answer"] for x in server.items()] == ["a", "aaaa"]
        r.begin(row("a"))
        assert r.judge.verdicts([]) == [] and not r.judge.begun
    assert no_thread_is_left()


def test_an_equal_judge_in_an_expression_is_begun_once() -> None:
    with serving(grade) as server:
        r = judge(server.url, model="m") + 0.5 * judge(server.url, model="m").clip(0.2) + judge(server.url, "other", model="m")
        r.begin(row("a", "b"))
        r.score(row("a", "b"))
        assert len(server.requests) == 4
    assert no_thread_is_left()


@pytest.mark.parametrize("together", [1, 2])
def test_a_judge_that_answers_quickly_is_asked_when_all_is_drawn(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for one whose requests hold several items: what shares a request must not depend on a clock."""
    with serving(grade) as server:
        for make, answers in ((judge, 2), (judge_wins, 2)) if together == 1 else ((judge, 2),):
            r = make(server.url, model="m", together=together)
            asker = r.judge if make is judge else r.pairs.judge
            for slow, begun in ((0.0, True), (60.0, together == 2)):
                monkeypatch.setattr(judging, "SLOW", slow)
                server.script = grade if make is judge else longer
                rollouts = Rollouts.from_text(["p"] * answers, ["a", "aaa"], group=[0] * answers)
                r.begin(rollouts)
                assert bool(asker.begun) == begun
                assert bool(r.score(rollouts).total.ok.all()) and not asker.begun


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    with serving(lambda items, _: Say(grade(items), delay=0.01)) as server:
        r = judge(server.url, model="m", concurrency=2)
        r.score(source(r).batch(0, Table(PROMPTS), 0).rollouts)
    assert server.most == 2


# ---- trouble


def test_a_judge_that_cannot_be_asked_is_reported_by_the_scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(grade) as server:
        gone = server.url
    with serving(grade) as server:
        keyless = judge(server.url, model="m", key_env="NOT_SET_ANYWHERE")
        (tmp_path / "c.txt").write_text("no database" * 100)
        cacheless = judge(server.url, model="m", cache=str(tmp_path / "c.txt"))
        for r in (keyless, cacheless, judge(gone)):
            errors = []
            for begun in (False, True):
                if begun:
                    r.begin(row("a"))
                with pytest.raises(InputError) as caught:
                    r.score(row("a"))
                errors.append(str(caught.value))
            assert errors[0] == errors[1] and not r.judge.begun
        r = judge(server.url, reference="answer")
        r.begin(row("a"))  # a field that is not there: the scoring says so
        with pytest.raises(InputError, match="reads `answer`"):
            r.score(row("a"))


def test_a_judge_that_fails_ends_the_run_with_the_same_words(tmp_path: Path) -> None:
    messages = []
    with serving(lambda items, _: Say(code=500, raw=b'{"error": "out of memory"}')) as server:
        for overlap in (False, True):
            r = judge(server.url, model="m", attempts=2)
            stage = Stage(
                "train",
                1,
                source(r if overlap else None),
                [Term(1.0, clipped_surrogate, token_mean)],
                reward=r,
                credit=group_relative,
            )
            with pytest.raises(RewardFailure) as caught:
                train(Recipe("test", lambda: Table(PROMPTS), [stage]), tmp_path / f"{overlap}", [])
            messages.append(str(caught.value))
    assert messages[0] == messages[1] and "HTTP 500: out of memory (2 of 2 attempts)" in messages[0]
    assert no_thread_is_left()


def test_what_is_raised_in_the_background_is_raised_by_the_scoring() -> None:
    def read(verdict: dict) -> Any:
        raise RuntimeError(f"cannot read {verdict['score']}")

    with serving(grade) as server:
        r = judge(server.url, model="m", concurrency=1)
        made = judging.Judge(r.judge.endpoint, r.judge.prompt, read)
        item = {"answer": "aaa"}
        for begun in (False, True):
            if begun:
                made.begin([item, {"answer": "a"}])
            with pytest.raises(RuntimeError, match="cannot read 7"):
                made.verdicts([item])
    assert no_thread_is_left() and not made.begun


def test_an_interrupt_ends_the_waiting_and_what_was_not_asked_is_not() -> None:
    release, main = threading.Event(), threading.main_thread().ident

    def script(items: list[dict], number: int) -> str:
        if number == 1:
            signal.pthread_kill(main, signal.SIGINT)
            assert release.wait(PATIENCE)
        return grade(items)

    with serving(script) as server:
        r = judge(server.url, model="m", concurrency=1)
        with pytest.raises(KeyboardInterrupt):
            r.score(row("a", "aa", "aaa"))
        release.set()
        assert no_thread_is_left() and len(server.requests) == 1
        assert r.score(row("a")).total.ok.all() and len(server.requests) == 2


def test_a_judge_is_pickled_without_what_is_under_way() -> None:
    release = threading.Event()

    def script(items: list[dict], _: int) -> str:
        assert release.wait(PATIENCE)
        return grade(items)

    with serving(script) as server:
        for make in (judge, judge_wins):
            r = make(server.url, model="m")
            r.begin(Rollouts.from_text(["p", "p"], ["a", "b"], group=[0, 0]))
            copy = pickle.loads(pickle.dumps(r))
            assert copy == r and pickle.loads(pickle.dumps(r.begin)).__self__ == r
            asker = copy.judge if make is judge else copy.comparator.comparator.judge
            assert not asker.begun and (make is judge or asker is copy.pairs.judge)
        release.set()
    assert no_thread_is_left()


def test_a_forked_process_asks_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parent's threads are not in it, so it would wait for ever."""
    with serving(grade) as server:
        r = judge(server.url, model="m")
        r.begin(row("a"))
        assert no_thread_is_left() and len(server.requests) == 1
        with monkeypatch.context() as patch:
            patch.setattr(judging.os, "getpid", lambda: -1)
            r.score(row("a"))
        assert len(server.requests) == 2 and len(r.judge.begun) == 1


ENDS = """
import sys
from guerdon.judges import judge
from guerdon.rollouts import Rollouts
judge(sys.argv[1], model="m", timeout=600, seconds=600).begin(Rollouts.from_text(["p"] * 3, ["a", "b", "c"]))
print(sys.stdin.readline().strip())
"""


def test_a_process_ends_with_requests_in_flight() -> None:
    asked, release = threading.Event(), threading.Event()

    def script(items: list[dict], _: int) -> str:
        asked.set()
        release.wait(3 * PATIENCE)
        return grade(items)

    with serving(script) as server:
        command = [sys.executable, "-c", ENDS, server.url]
        with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
            try:
                assert asked.wait(3 * PATIENCE)
                out, error = process.communicate("the end\n", timeout=PATIENCE)
            finally:
                release.set()
                process.kill()
    assert (process.returncode, out, error) == (0, "the end\n", "")


# ---- functions


def test_a_function_is_told_of_its_items_early() -> None:
    class Length:
        def __init__(self) -> None:
            self.told: list[dict[str, Any]] = []

        def begin(self, items: list[dict[str, Any]]) -> None:
            self.told += items

        def __call__(self, completion: str, prompt: str) -> int:
            return len(completion)

    plain = reward(lambda completion: 1.0, name="plain")
    early, killed, unready, split = Length(), Length(), Length(), Length()
    r = 0.5 * reward(early, name="early") + plain + reward(killed, name="killed", budget=9.0)
    r = r + reward(unready, name="unready", reads={"prompt": "later"})
    r = r + reward(split, name="split", level="line", split=r"\n").pool("sum", "episode")
    assert [leaf.begins for leaf in r.nodes() if not leaf.parts] == [True, False, False, True, True] and r.begins
    assert not plain.begins and not (plain + 0.5 * plain).begins
    r.begin(Rollouts.from_text(["p", "q"], ["a\nb", "cd"], steps="characters"))
    assert early.told == [{"completion": "a\nb", "prompt": "p"}, {"completion": "cd", "prompt": "q"}]
    assert not killed.told and not unready.told and [x["completion"] for x in split.told] == ["a\nb", "a\nb", "cd"]


# ---- guerdon train


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from tests.cli import checkpoint

    tokenizer = checkpoint.character_tokenizer(chat=True)
    return checkpoint.save(tmp_path_factory.mktemp("model"), checkpoint.untrained(tokenizer, seed=1, width=16), tokenizer)


@pytest.mark.parametrize("asks", ["numeric", "numeric + 0.1*judge('{}', model='m')"])
def test_training_overlaps_where_a_judge_is_asked(asks: str, model: Path, tmp_path: Path) -> None:
    from guerdon.recipes.train import recipe

    data = tmp_path / "sums.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{i}+1=", "answer": f"{i + 1}"}) + "\n" for i in range(9)))
    settings = {"prompts": 6, "samples": 2, "max_new_tokens": 4, "held_out": 2, "steps": 1, "lr": 1e-3}
    with serving(grade) as server:
        made = recipe(str(model), str(data), asks.format(server.url), **settings)
        source, told = made.stages[0].source, []
        assert isinstance(source, Prompts) and (source.ready is not None) == ("judge" in asks)
        if source.ready is None:
            return

        def ready(rollouts: Rollouts, begin: Any = source.ready) -> None:
            told.append(len(rollouts))
            begin(rollouts)

        object.__setattr__(source, "ready", ready)
        train(made, tmp_path / "run", [])
        assert sum(told) == 12
