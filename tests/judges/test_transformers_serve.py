# SPDX-License-Identifier: Apache-2.0
"""The protocol against a real server: `transformers serve` with a tiny untrained model, whose gibberish is no verdict."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guerdon.judges import judge, judge_pairs
from guerdon.judges.posting import Unreachable, send
from guerdon.rollouts import Rollouts
from guerdon.scores import Status

for needed in ("fastapi", "uvicorn", "openai"):
    pytest.importorskip(needed)


def write_model(path: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    raw = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    LlamaForCausalLM(LlamaConfig(**size, **ids, max_position_embeddings=4096)).save_pretrained(path)
    tokenizer.save_pretrained(path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """(address, model)"""
    path = tmp_path_factory.mktemp("model")
    write_model(path)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "transformers.cli.transformers",
        "serve",
        str(path),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    hub = tmp_path_factory.mktemp("hub")  # /v1/models lists a cache, which must be there
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub), "OMP_NUM_THREADS": "1"}
    log = tmp_path_factory.mktemp("log") / "serve.txt"
    with log.open("w") as out:
        server = subprocess.Popen([*command, "--device", "cpu"], env=env, stdout=out, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            assert server.poll() is None, log.read_text()[-2000:]
            try:
                if send(f"http://127.0.0.1:{port}/health", None, {}, 5.0).code == 200:
                    break
            except (Unreachable, TimeoutError):
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1", str(path)
    finally:
        server.terminate()
        server.wait(20)


def test_a_real_server_understands_what_is_asked(served: tuple[str, str]) -> None:
    url, model = served
    r = judge(url, model=model, max_tokens=8, concurrency=2, price=(1.0, 1.0))
    scores = r(prompts=["2+2="] * 2, completions=["4", "five"])
    assert scores.total.status[:, 0].tolist() == [Status.ABSTAIN] * 2
    assert scores.total.reasons[0, 0] == "no verdict for it in the reply; the reply ended by `length`"
    assert r.tally.requests == 2 and r.tally.unparsed_rate == 1.0 and r.tally.unmetered == 0
    assert r.tally.completion_tokens == 16 and r.tally.prompt_tokens > 1000 and r.tally.cost is not None


def test_pairs_and_complaints(served: tuple[str, str]) -> None:
    url, model = served
    rows = Rollouts.from_text(["p", "p"], ["a", "b"], group=[0, 0])
    compare = judge_pairs(url, model=model, max_tokens=4)
    assert compare(rows, rows.group.new_tensor([[0, 1]])).status.tolist() == [Status.ABSTAIN]
    scores = judge(url, model="no/such-model", attempts=1)(completions=["a"])
    assert scores.total.status.tolist() == [[Status.ERROR]] and "HTTP " in scores.total.reasons[0, 0]
