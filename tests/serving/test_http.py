# SPDX-License-Identifier: Apache-2.0
"""A served reward over HTTP: in a thread for what is asked and answered, in a process for what becomes of the process."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from guerdon.rewards import parse
from guerdon.serving.app import Settings
from guerdon.serving.server import listen, running
from tests.serving.processes import SERVED, served, wait_for

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def matching() -> Iterator[httpx2.Client]:
    with running(parse(f"{SERVED}:matches + 0.5*{SERVED}:size"), Settings(max_body=20_000)) as url, client(url) as http:
        yield http


def client(url: str, **settings) -> httpx2.Client:
    return httpx2.Client(base_url=url, trust_env=False, timeout=60, **settings)


def item(completion: str, **fields) -> dict:
    return {"completion": completion, "fields": fields}


def metric(http: httpx2.Client, name: str) -> float:
    lines = http.get("/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " "))


# ---- what is asked and answered


def test_items_have_a_total_and_parts_each_with_value_status_and_reason(matching: httpx2.Client) -> None:
    answer = matching.post("/score", json={"items": [item("four", answer="four"), item("no", answer="four", bonus=1)]})
    assert answer.status_code == 200
    first, second = answer.json()["items"]
    assert first["total"] == {"value": 1.5 + 2.0, "status": "ok", "reason": ""}
    assert first["parts"] == {
        "matches": {"value": 1.5, "status": "ok", "reason": ""},
        "size": {"value": 4.0, "status": "ok", "reason": ""},
    }
    assert second["total"]["value"] == 1.0
    assert answer.json()["version"] == matching.get("/reward").json()["version"]


def test_what_is_served_is_told(matching: httpx2.Client) -> None:
    told = matching.get("/reward").json()
    assert told["required"] == ["answer"] and told["optional"] == ["bonus"]
    assert told["bounds"] == [None, None] and "size" in told["tree"] and "10 s each" in told["tree"]
    assert matching.get("/health").json()["status"] == "ok"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"items": [{"completion": 4, "fields": {"answer": "4"}}]}, 422, "items[0].completion"),
        ({"items": [{"completion": "4", "answer": "4"}]}, 422, "items[0].answer"),
        ({"items": [{"completion": [{"role": "assistant"}], "fields": {"answer": "4"}}]}, 422, "items[0].completion[0].content"),
        ({"items": [{"completion": "4", "fields": {"answer": "4"}, "group": 1.5}]}, 422, "items[0].group"),
        ({"items": [item("4", answer="4"), item("4")]}, 422, "items[1].fields.answer"),
        ({"items": [item("4", answer="4", source="x")]}, 422, "items[0].fields.source"),
        ({"items": [item("4", answer="4")], "step": -1}, 422, "step"),
        ({"items": [item("4", answer="4")], "reward": "numeric"}, 422, "reward"),
        ({"items": []}, 422, "items"),
        ({"items": "4"}, 422, "items"),
        ([], 422, "body"),
    ],
)
def test_a_request_that_is_wrong_is_told_where(matching: httpx2.Client, body, code: int, field: str) -> None:
    answer = matching.post("/score", json=body)
    assert answer.status_code == code
    assert field in [d["field"] for d in answer.json()["detail"]]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"items": [{"completion": "\\ud800", "fields": {"answer": "4"}}]}', 400),  # half a character
        (b"[" * 10_000, 400),
        (b'{"items": [' + b" " * 30_000 + b"]}", 413),
    ],
)
def test_malformed_bodies(matching: httpx2.Client, body: bytes, code: int) -> None:
    assert matching.post("/score", content=body, headers=JSON).status_code == code
    assert matching.post("/score", json={"items": [item("4", answer="4")]}).status_code == 200  # and it goes on


def test_a_body_without_a_length_is_cut_off_too(matching: httpx2.Client) -> None:
    assert matching.post("/score", content=iter([b" " * 15_000] * 3), headers=JSON).status_code == 413


def test_other_types_and_places(matching: httpx2.Client) -> None:
    body = json.dumps({"items": [item("4", answer="4")]})
    assert matching.post("/score", content=body, headers={"content-type": "text/plain"}).status_code == 415
    assert matching.get("/score").status_code == 405
    assert matching.get("/nowhere").status_code == 404
    assert matching.get("/reward", headers={"host": "another.example"}).status_code == 403  # a name led here by a web page
    assert matching.get("/reward", headers={"host": "localhost:1"}).status_code == 200


def test_metrics_count_items_by_status_and_requests_by_code() -> None:
    with running(parse(f"{SERVED}:traps"), Settings(budget=1.0)) as url, client(url) as http:
        answer = http.post("/score", json={"items": [item(x) for x in ("fine", "hang", "raise", "none", "fine")]}).json()
        said = [(i["total"]["status"], i["total"]["value"]) for i in answer["items"]]
        assert said == [("ok", 4.0), ("timeout", None), ("error", None), ("abstain", None), ("ok", 4.0)]
        assert answer["items"][1]["total"]["reason"] == "took longer than its budget of 1 s"
        http.post("/score", content=b"{", headers=JSON)
        for status, count in {"ok": 2, "timeout": 1, "error": 1, "abstain": 1}.items():
            assert metric(http, f'guerdon_items_total{{status="{status}"}}') == count
        assert metric(http, 'guerdon_requests_total{code="200"}') >= 1
        assert metric(http, 'guerdon_requests_total{code="400"}') == 1
        assert metric(http, "guerdon_batch_items_sum") == 5 and metric(http, "guerdon_request_seconds_count") == 1
        assert metric(http, 'guerdon_batch_items_bucket{le="8"}') == 1 and metric(http, "guerdon_queue_items") == 0


def test_many_clients_at_once_each_get_their_own_scores() -> None:
    with running(parse(f"{SERVED}:size"), Settings(max_wait=0.02)) as url, client(url) as http:

        def ask(n: int) -> list[float]:
            texts = ["a" * ((n + k) % 11) for k in range(n % 5 + 1)]
            answer = http.post("/score", json={"items": [item(t) for t in texts]}).json()
            return [i["total"]["value"] for i in answer["items"]] if len(texts) == len(answer["items"]) else []

        with ThreadPoolExecutor(16) as threads:
            found = list(threads.map(ask, range(64)))
        assert found == [[float((n + k) % 11) for k in range(n % 5 + 1)] for n in range(64)]
        assert metric(http, "guerdon_batch_items_sum") == sum(n % 5 + 1 for n in range(64))
        assert metric(http, "guerdon_batch_items_count") < 64  # some went together


def test_a_rate_limit_says_when_to_come_again() -> None:
    with running(parse(f"{SERVED}:size"), Settings(rate=0.01, burst=2)) as url, client(url) as http:
        codes = [http.post("/score", json={"items": [item("a")]}).status_code for _ in range(2)]
        refused = http.get("/reward")
        assert codes == [200, 200] and refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 100
        assert http.get("/health").status_code == 200


def test_a_full_queue_is_503(tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    with running(parse(f"{SERVED}:gated"), Settings(max_queue=2, budget=60)) as url, client(url) as http:
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(http.post, "/score", json={"items": [item("first", gate=gate)]})
            wait_for(Path(gate + ".first").exists, "the first batch")
            refused = http.post("/score", json={"items": [item(x, gate=gate) for x in "abc"]})
            Path(gate).touch()
            assert first.result().status_code == 200
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"


def test_a_client_that_leaves_takes_its_items_out_of_the_queue(tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    with running(parse(f"{SERVED}:gated"), Settings(budget=60)) as url, client(url) as http:
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(http.post, "/score", json={"items": [item("first", gate=gate)]})
            wait_for(Path(gate + ".first").exists, "the first batch")
            body = json.dumps({"items": [item("leaves", gate=gate)]}).encode()
            with socket.create_connection(("127.0.0.1", urlsplit(url).port)) as leaver:
                head = f"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
                leaver.sendall(head.encode() + b"\r\n\r\n" + body)
                wait_for(lambda: metric(http, "guerdon_queue_items") == 1, "the second request")
            wait_for(lambda: metric(http, "guerdon_disconnected_total") == 1, "the client's leaving")
            assert metric(http, "guerdon_queue_items") == 0
            Path(gate).touch()
            assert first.result().json()["items"][0]["total"]["value"] == 1.0
        assert http.post("/score", json={"items": [item("last", gate=gate)]}).status_code == 200
        assert not Path(gate + ".leaves").exists()  # never begun
        assert metric(http, 'guerdon_items_total{status="ok"}') == 2


def test_answers_are_sent_without_delay() -> None:
    with listen("127.0.0.1", 0, "") as listening:
        assert listening.proto == socket.IPPROTO_TCP  # what asyncio looks at before it sets TCP_NODELAY


# ---- tokens


def test_a_token_is_asked_for_everywhere_but_at_health() -> None:
    with running(parse(f"{SERVED}:size"), Settings(token="s3cret")) as url:
        with client(url) as http:
            for answer in (http.post("/score", json={"items": [item("a")]}), http.get("/reward"), http.get("/metrics")):
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert http.get("/reward", headers={"authorization": "Bearer wrong"}).status_code == 401
            assert http.get("/health").status_code == 200
        with client(url, headers={"authorization": "Bearer s3cret"}) as http:
            assert http.post("/score", json={"items": [item("abc")]}).json()["items"][0]["total"]["value"] == 3.0


# ---- the process


def test_told_to_stop_it_answers_what_was_asked_and_ends(tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    with served("gated", "--budget", "60") as (url, process), client(url) as http, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(http.post, "/score", json={"items": [item("asked", gate=gate)]})
        wait_for(Path(gate + ".asked").exists, "the batch")
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: not accepts(url), "the server to close its door")
        assert process.poll() is None
        Path(gate).touch()
        assert asked.result().json()["items"][0]["total"]["value"] == 1.0
        assert process.wait(30) in (0, -signal.SIGTERM)


def accepts(url: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=5).close()
    except OSError:
        return False
    return True
