# SPDX-License-Identifier: Apache-2.0
"""A remote reward is a leaf: the same numbers as here; what goes wrong between is a status with a reason, never a 0."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

from guerdon import checkers
from guerdon.errors import InputError
from guerdon.rewards import Reward, parse
from guerdon.rollouts import Rollouts
from guerdon.scores import Bounds, Scores, Status
from guerdon.serving.app import Settings
from guerdon.serving.client import Remote, remote
from guerdon.serving.scoring import info_of, version_of
from guerdon.serving.server import running
from tests.serving.processes import SERVED, served
from tests.serving.rewards import anything, matches, size


def same(a: Scores, b: Scores) -> None:
    torch.testing.assert_close(a.total.values, b.total.values, equal_nan=True, rtol=0, atol=0)
    assert a.total.status.tolist() == b.total.status.tolist()


def statuses(scores: Scores) -> list[str]:
    return [Status(s).name.lower() for s in scores.total.status[:, 0].tolist()]


# ---- the same as here


def test_a_remote_reward_in_an_expression_is_what_it_is_here() -> None:
    here = matches + 0.3 * size
    texts = [f"{'ab' * (n % 4)}" for n in range(150)]
    with running(here) as url:
        there = remote(url)
        assert there.needs == {"completion", "answer"} and there.bounds == Bounds() and there.relation == "self"
        for build in (lambda r: r, lambda r: 2 * r.gate(on=checkers.exact()) - 0.1 * checkers.length(), lambda r: r.clip(0, 1)):
            same(*(build(r)(completions=texts, answer=["ab"] * 150) for r in (there, here)))
        assert remote(url, name="judge")(completions=["ab"], answer=["ab"]).total.values.item() == pytest.approx(2.1)
        assert there.tree().splitlines()[1].startswith(f"remote('{url}')")


def test_its_text_reads_back_as_itself_and_holds_no_token() -> None:
    with running(size, Settings(token="s3cret")) as url:
        made = remote(url, name="judge", batch=8, token="s3cret")
        assert str(made) == f"remote({url!r}, name='judge', batch=8)"
        text = str(2 * made + size.named("own"))
        again = parse(text, {"remote": lambda url, **settings: remote(url, token="s3cret", **settings)})
        assert again == 2 * made + size.named("own") and "s3cret" not in text + repr(made) + made.tree()


def test_chat_prompts_fields_and_steps_arrive() -> None:
    chat = [{"role": "assistant", "content": "abc"}, {"role": "tool", "content": "zzzz"}, {"role": "assistant", "content": "d"}]
    schedule = parse("linear(0, 1, 10)*length")
    prompts = [[{"role": "user", "content": "say"}], "say"]
    rollouts = Rollouts.from_text(prompts, [chat, "ab"], a=[1, 2], b=[10, 20], none=[None, None])
    for here in (size, anything, schedule):
        with running(here) as url:
            there = remote(url)
            for step in (0, 5):
                same(there.score(rollouts, step=step), here.score(rollouts, step=step))


def test_a_reward_that_compares_gets_its_groups_in_one_request() -> None:
    here = size.normalise(over="group")
    rollouts = Rollouts.from_text(["p"] * 9, ["a" * (n * n % 7 + 1) for n in range(9)], group=[n % 3 for n in range(9)])
    with running(here, Settings(max_batch=2)) as url:
        there = remote(url, batch=2)
        assert there.relation == "group"
        same(there.score(rollouts), here.score(rollouts))


def test_only_units_that_the_policy_took_are_asked_for() -> None:
    rollouts = Rollouts.from_text([""] * 2, ["ab", "abc"])
    rollouts = rollouts.replace(mask=torch.tensor([[False], [True]]))
    with running(size) as url:
        scores = remote(url).score(rollouts)
    assert scores.total.status.tolist() == [[int(Status.NONE)], [int(Status.OK)]] and scores.total.values[1].item() == 3


def test_statuses_and_reasons_of_the_server_are_handed_on() -> None:
    with running(parse(f"{SERVED}:traps"), Settings(budget=1.0)) as url:
        scores = remote(url)(completions=["fine", "hang", "raise", "none"])
    assert statuses(scores) == ["ok", "timeout", "error", "abstain"]
    assert scores.total.reasons[1, 0] == "took longer than its budget of 1 s"
    assert "no such thing" in scores.total.reasons[2, 0] and scores.total.values.isnan().sum() == 3


def test_an_item_that_is_refused_is_lost_alone() -> None:
    with running(size, Settings(max_body=600)) as url:
        texts = ["a"] * 3 + ["a" * 1000] + ["a"] * 4
        scores = remote(url)(completions=texts)
    assert statuses(scores) == ["ok"] * 3 + ["error"] + ["ok"] * 4
    assert "answered 413: expected a body of at most 600 bytes" in scores.total.reasons[3, 0]


def test_what_is_no_json_is_an_error_of_its_item() -> None:
    with running(matches) as url:
        scores = remote(url)(completions=["a", "a", "a"], answer=["a", {1, 2}, "b"], bonus=[1, 1, float("nan")])
    assert statuses(scores) == ["ok", "error", "error"]
    assert "can't be sent as JSON" in scores.total.reasons[1, 0] and "can't be sent as JSON" in scores.total.reasons[2, 0]


# ---- a server that dies


def test_a_server_that_dies_in_the_middle_of_a_batch_is_an_error_of_the_items_in_it() -> None:
    with served("traps") as (url, process):
        there: Any = remote(url, batch=1)
        there.function.attempts = 2
        there.function.concurrency = 1
        scores = there(completions=["before", "kill the server", "after"])
        assert process.wait(30) == -9
    assert statuses(scores) == ["ok", "error", "error"] and scores.total.values[:, 0].isnan().tolist() == [False, True, True]
    assert all(f"{url}: " in scores.total.reasons[n, 0] and "after 2 attempts" in scores.total.reasons[n, 0] for n in (1, 2))


# ---- a server that misbehaves

Answer = Callable[[BaseHTTPRequestHandler, int], None]


@contextmanager
def misbehaving(*answers: Answer) -> Iterator[tuple[str, list[str]]]:
    """A server that answers /score with one of ``answers`` after the other, the last for ever; (address, what was asked)."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply(self, 200, info_of(size).model_dump_json())

        def do_POST(self) -> None:
            count = len(json.loads(self.rfile.read(int(self.headers["content-length"])))["items"])
            asked.append(self.path)
            answers[min(len(asked), len(answers)) - 1](self, count)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def reply(handler: BaseHTTPRequestHandler, code: int, body: str, **headers: str) -> None:
    handler.send_response(code)
    for name, value in {"Content-Length": str(len(body.encode())), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body.encode())


def coded(code: int, body: str = '{"error": "busy", "detail": []}', **headers: str) -> Answer:
    return lambda handler, count: reply(handler, code, body, **headers)


def scored(value: Any, status: str = "ok", version: str = "", count: int | None = None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, asked: int) -> None:
        one = {"total": {"value": value, "status": status, "reason": ""}, "parts": {}}
        items = [one] * (asked if count is None else count)
        reply(handler, 200, json.dumps({"items": items, "version": version or VERSION}))

    return answer


def dropped(handler: BaseHTTPRequestHandler, count: int) -> None:
    handler.close_connection = True
    handler.connection.close()


VERSION = version_of(size)


def asked_of(url: str, attempts: int = 5, **settings: Any) -> tuple[Remote, list[float]]:
    """A remote reward whose pauses are noted instead of made."""
    made, pauses = remote(url, **settings), list[float]()
    assert isinstance(made, Remote)
    client: Any = made.function
    client.attempts, client.sleep = attempts, pauses.append
    return made, pauses


def one(made: Reward) -> tuple[str, float, str]:
    total = made(completions=["abc"]).total
    return Status(int(total.status[0, 0])).name.lower(), total.values[0, 0].item(), total.reasons.get((0, 0), "")


def test_what_may_pass_is_tried_again_with_growing_pauses() -> None:
    with misbehaving(coded(500), dropped, coded(429, Retry_After="7"), coded(503), scored(3.0)) as (url, asked):
        made, pauses = asked_of(url)
        assert one(made) == ("ok", 3.0, "")
        assert pauses == [0.1, 0.2, 7.0, 0.8] and len(asked) == 5


def test_attempts_and_patience_end() -> None:
    with misbehaving(coded(503)) as (url, asked):
        made, pauses = asked_of(url, attempts=3)
        status, value, reason = one(made)
        assert status == "error" and value != value and reason == f"{url}: answered 503: busy, after 3 attempts"
        assert pauses == [0.1, 0.2] and len(asked) == 3
    with misbehaving(coded(429, Retry_After="1000")) as (url, asked):
        made, pauses = asked_of(url)
        assert one(made)[0] == "error" and pauses == [] and len(asked) == 1  # more than its patience


def test_a_server_that_says_nothing_is_a_timeout() -> None:
    silent = threading.Event()
    with misbehaving(lambda handler, count: silent.wait(30) and None) as (url, asked):
        made, _ = asked_of(url, attempts=2, timeout=0.2)
        status, value, reason = one(made)
        silent.set()
    assert status == "timeout" and value != value and reason == f"{url}: no answer within 0.2 s, after 2 attempts"
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (coded(200, "<html>"), "answered with something else than scores"),
        (coded(200, "{}"), "answered with something else than scores: items: Field required"),
        (scored(3.0, count=2), "answered with 2 scores for 1 items"),
        (scored(3.0, version="other"), "serves another reward now: version other, not "),
        (scored(None), "the server answered the value None with status 'ok'"),
        (scored(0.0, "fine"), "the server answered the value 0.0 with status 'fine'"),
        (scored("3"), "answered with something else than scores"),
        (scored(11.0), r"value 11 is outside its bounds [0, 10]"),
        (coded(401), "answered 401: busy"),
        (coded(422, '{"error": "no", "detail": [{"field": "x", "message": "y"}]}'), "answered 422: no (x: y)"),
        (coded(302, "", Location="http://127.0.0.1:1/"), "answered 302: nothing"),
    ],
)
def test_an_answer_that_is_no_score_is_an_error_and_is_not_asked_for_again(answer: Answer, reason: str) -> None:
    with misbehaving(answer) as (url, asked):
        made, pauses = asked_of(url)
        status, value, said = one(made)
        assert (status, len(asked), pauses) == ("error", 1, []) and value != value
        assert reason in said


def test_a_failure_that_is_judged_0_elsewhere_stays_a_failure() -> None:
    with misbehaving(scored(0.0, "error")) as (url, _):
        status, value, reason = one(asked_of(url)[0])
        assert status == "error" and value != value and reason == "the server gave no reason"


# ---- loud


def test_what_cannot_be_reached_is_told_when_the_reward_is_made() -> None:
    with running(size) as url:
        pass
    with pytest.raises(InputError, match=rf"expected a reward served at {url}, got: ConnectError"):
        remote(url, patience=0.2)
    with pytest.raises(InputError, match="an address such as"):
        remote("localhost:8000")
    with pytest.raises(InputError, match="`batch` should be a number above 0"):
        remote(url, batch=0)
    with running(size, Settings(token="s3cret")) as url, pytest.raises(InputError, match="answered 401"):
        remote(url, token="wrong")
