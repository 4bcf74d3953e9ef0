# SPDX-License-Identifier: Apache-2.0
"""`guerdon serve`: what it refuses before it listens, and a server beyond this machine's own address."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx2
import pytest

import guerdon.cli
from guerdon.cli import main
from tests.serving.processes import served


@pytest.fixture(autouse=True)
def _listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guerdon.cli, "COMMANDS", tuple(dict.fromkeys((*guerdon.cli.COMMANDS, "serve"))))
    monkeypatch.delenv("GUERDON_TOKEN", raising=False)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["serve", *arguments]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["length", "--host", "0.0.0.0"], "expected a token, since 0.0.0.0 can be reached from other machines, got none"),
        (["nothing"], "no reward is called `nothing`"),
        (["environment"], "reads `environment_reward`"),
        (["length", "--max-batch", "0"], "--max-batch should be 1 or more, got 0"),
        (["length", "--rate", "-1"], "--rate should be 0 or more"),
        (["length", "--budget", "0"], "`budget` should be seconds above 0"),
        (["length", "--token-file", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_what_cannot_be_served_is_refused(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert said in refused(capsys, *arguments, "--port", "0")


def test_a_token_that_is_none_and_a_taken_port_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for text, count in (("\n", 0), ("two words", 9), ("schlüssel", 9)):
        (tmp_path / "token").write_text(text)
        assert f"got {count} characters" in refused(capsys, "length", "--token-file", str(tmp_path / "token"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert f"can't listen on 127.0.0.1, port {port}" in refused(capsys, "length", "--port", port)


def test_beyond_this_machine_clients_bear_the_token_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    options = ("--host", "0.0.0.0", "--token-file", str(tmp_path / "token"))
    with served("size", *options, token="another") as (url, _), httpx2.Client(base_url=url, trust_env=False, timeout=60) as http:
        body = {"items": [{"completion": "abc"}]}
        for header in ({}, {"authorization": "Bearer another"}):
            assert http.post("/score", json=body, headers=header).status_code == 401
        answer = http.post("/score", json=body, headers={"authorization": "Bearer s3cret", "host": "another.example"})
        assert answer.json()["items"][0]["total"]["value"] == 3.0
