# SPDX-License-Identifier: Apache-2.0
import json
import random
import shutil
from pathlib import Path

import pytest

from guerdon.cli import main
from guerdon.tasks import load_tasks
from tests.cli import checkpoint

POISON = str(Path(__file__).parent / "data" / "poison.py")
SUMS = "reasoning_gym:chain_sum?size=1000&seed=1&min_terms=2&max_terms=2&min_digits=1&max_digits=1"


def sums() -> list[tuple[str, str]]:
    """("4 - 1 =", "3") and so on: reasoning-gym's questions without their first words."""
    return [(str(t.prompt).rpartition(": ")[2], str(t.fields["answer"])) for t in load_tasks(SUMS)]


CLOCKS = {"seconds", "time/process"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Half of its lessons are another task's answer, so it is partly right."""
    tokenizer = checkpoint.character_tokenizer()
    network = checkpoint.untrained(tokenizer, seed=0)
    draw, pairs = random.Random(0), sums()
    answers = [a for _, a in pairs]
    lessons = [(p, a if draw.random() < 0.5 else draw.choice(answers)) for _ in range(40) for p, a in pairs]
    checkpoint.teach(network, tokenizer, lessons, 500, seed=0)
    return checkpoint.save(tmp_path_factory.mktemp("model"), network, tokenizer)


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> Path:
    """An untrained model with a chat template."""
    tokenizer = checkpoint.character_tokenizer(chat=True)
    return checkpoint.save(tmp_path_factory.mktemp("quick"), checkpoint.untrained(tokenizer, seed=1, width=16), tokenizer)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "answer": a}) + "\n" for p, a in sums()))
    return path


BRIEF = ["steps=2", "prompts=2", "samples=2", "held_out=2", "max_new_tokens=3", "lr=1e-3", "checkpoint_every=1"]


def train(model: Path, data: object, out: Path, *settings: str, reward: str = "numeric") -> int:
    return main(["train", "--model", str(model), "--data", str(data), "--reward", reward, "--out", str(out), *settings])


def test_held_out_accuracy_improves_and_the_policy_loads_elsewhere(model: Path, data: Path, tmp_path: Path, capsys) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "run"
    assert train(model, data, out, "max_new_tokens=4", "steps=40", "evaluate_every=20") == 0
    result = json.loads((out / "result.json").read_text())
    assert result["samples"] == 40 * 64 * 8
    assert result["eval/success_best"] >= result["eval/success"]
    assert result["eval/success"] > result["eval/success_start"] + 0.08, result
    printed = capsys.readouterr().out
    assert f"held-out success {result['eval/success_start']:.1%} -> {result['eval/success']:.1%}" in printed
    assert (out / "report.html").exists()

    there = AutoModelForCausalLM.from_pretrained(out / "policy")
    tokenizer = AutoTokenizer.from_pretrained(out / "policy")
    ids = tokenizer(sums()[0][0], return_tensors="pt").input_ids
    assert there.generate(ids, max_new_tokens=2, do_sample=False, pad_token_id=0).shape[1] > ids.shape[1]

    before = (out / "metrics.jsonl").read_bytes()
    assert train(model, data, out, "max_new_tokens=4", "steps=40", "evaluate_every=20") == 0
    assert "finished already" in capsys.readouterr().out
    assert (out / "metrics.jsonl").read_bytes() == before


def test_lora_trains_an_adapter_that_peft_loads(quick: Path, data: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert train(quick, data, tmp_path / "run", *BRIEF, "lora=4", "kl=0.01", reward="0.1*length") == 0
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(quick), tmp_path / "run" / "policy")
    moved = [p for name, p in loaded.named_parameters() if "lora_B" in name]
    assert moved
    assert any(p.abs().max() > 0 for p in moved)  # a new adapter's B is zero


def test_generated_tasks_chat_messages_and_a_function_of_ones_own(quick: Path, tmp_path: Path) -> None:
    from guerdon.rollouts import Rollouts

    generated = "reasoning_gym:chain_sum?size=8&seed=1&min_terms=2&max_terms=2"
    assert train(quick, generated, tmp_path / "a", *BRIEF) == 0
    chat = tmp_path / "chat.jsonl"
    chat.write_text("".join(json.dumps({"prompt": [{"role": "user", "content": p}], "answer": a}) + "\n" for p, a in sums()[:8]))
    assert train(quick, chat, tmp_path / "b", *BRIEF, reward=f"{POISON}:tidy + 0.01*length") == 0
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["about"]["success"] == f"{POISON}:tidy"
    rollouts = Rollouts.load(tmp_path / "b" / "rollouts" / "step-000001.parquet")
    asked, said = rollouts.values_at("messages", "episode")[0]
    assert (asked["role"], said["role"]) == ("user", "assistant")


def test_an_interrupted_run_goes_on_with_the_same_command(quick: Path, data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    from guerdon.training.sources import Prompts

    assert train(quick, data, tmp_path / "whole", *BRIEF, reward="length") == 0
    batch = Prompts.batch

    def interrupted(self, step, *args):
        if step == 1:
            raise KeyboardInterrupt
        return batch(self, step, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Prompts, "batch", interrupted)
        assert train(quick, data, tmp_path / "run", *BRIEF, reward="length") == 130
    assert "goes on from the newest checkpoint" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "run")]) == 0
    assert "going on from step 000001" in capsys.readouterr().out
    whole, run = (json.loads((tmp_path / x / "result.json").read_text()) for x in ("whole", "run"))
    assert {k: v for k, v in run.items() if k not in CLOCKS} == {k: v for k, v in whole.items() if k not in CLOCKS}


def test_a_run_is_done_again_from_its_config(quick: Path, data: Path, tmp_path: Path) -> None:
    assert train(quick, data, tmp_path / "first", *BRIEF, "--seed", "3", reward="length") == 0
    assert main(["run", str(tmp_path / "first" / "config.json"), "--out", str(tmp_path / "again")]) == 0
    assert main(["run", str(tmp_path / "first"), "--out", str(tmp_path / "other"), "lr=0.01"]) == 0
    first, again, other = (json.loads((tmp_path / x / "result.json").read_text()) for x in ("first", "again", "other"))
    same = first.keys() - CLOCKS
    assert {k: first[k] for k in same} == {k: again[k] for k in same}
    assert json.loads((tmp_path / "other" / "config.json").read_text())["arguments"]["lr"] == 0.01
    assert other["eval/length_start"] == first["eval/length_start"]


# name -> (reward, settings, what is done to the files, what the message says)
WRONG = {
    "unknown setting": ("numeric", ["stepps=3"], "", ["stepps", "Did you mean 'steps'"]),
    "setting of another type": ("numeric", ["steps=many"], "", ["`steps`", "integer", "'many'"]),
    "one sample a task": ("numeric", ["samples=1"], "", ["`samples`", "at least 2", "got 1"]),
    "unknown products": ("numeric", ["products=float64"], "", ["`products`", "float64", "bfloat16"]),
    "unknown dtype": ("numeric", ["dtype=float8"], "", ["`dtype`", "float8"]),
    "all held out": ("numeric", ["held_out=500"], "", ["held_out=500"]),
    "no success": (f'steps("{POISON}:good_step")', [], "", ["success"]),
    "a field that lines lack": ("exact(answer='gold')", [], "", ["sums.jsonl, line 1", "`gold`"]),
    "unknown reward": ("numerik", [], "", ["numerik", "^"]),
    "malformed line": ("numeric", [], "line", ["sums.jsonl, line 3", "JSON"]),
    "no tokenizer": ("numeric", ["lr=1e-3"], "tokenizer", ["tokenizer", "model"]),
    "no model": ("numeric", [], "model", ["model"]),
    "no chat template": ("numeric", [], "chat", ["chat template"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_one_message_and_leave_nothing_behind(name: str, quick: Path, data: Path, tmp_path: Path, capsys) -> None:
    reward, settings, harm, expected = WRONG[name]
    model = shutil.copytree(quick, tmp_path / "model")
    if harm == "line":
        lines = data.read_text().splitlines()
        data.write_text("\n".join([*lines[:2], "{'prompt': 1}", *lines[2:]]))
    elif harm == "chat":
        (model / "chat_template.jinja").unlink()
        data.write_text("".join(json.dumps({"prompt": [{"role": "user", "content": p}], "answer": a}) + "\n" for p, a in sums()))
    elif harm:
        for path in model.glob("tokenizer*" if harm == "tokenizer" else "*"):
            path.unlink()
    assert train(model, data, tmp_path / "out", *settings, reward=reward) == 2
    err = capsys.readouterr().err
    assert err.startswith("guerdon: ")
    assert "Traceback" not in err
    assert all(e in err for e in expected), err
    assert not (tmp_path / "out").exists()


def test_a_directory_of_another_run_or_of_other_files_is_left_alone(quick: Path, data: Path, tmp_path: Path, capsys) -> None:
    assert train(quick, data, tmp_path / "run", *BRIEF) == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    assert train(quick, data, tmp_path / "run", *BRIEF, "seed=9") == 2
    assert "holds another run" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert train(quick, data, tmp_path / "mine", *BRIEF) == 2
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    assert train(quick, data, tmp_path / "mine" / "letter.txt", *BRIEF) == 2


def test_success_is_the_first_term_that_scores_whole_answers() -> None:
    from guerdon.recipes.train import first_whole
    from guerdon.rewards.parse import parse

    assert str(first_whole(parse("0.2*format('a') + numeric"))) == "format('a')"
    assert str(first_whole(parse("-0.01*length + numeric"))) == "numeric"
    assert str(first_whole(parse(f"steps('{POISON}:good_step') + exact.normalise() + exact"))) == "exact"


def test_a_tracker_is_told_too_and_weights_are_trained_in_single_precision(quick: Path, data: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, half = tmp_path / "run", tmp_path / "half"
    model = AutoModelForCausalLM.from_pretrained(quick, dtype=torch.bfloat16)
    model.save_pretrained(half)
    AutoTokenizer.from_pretrained(quick).save_pretrained(half)
    given = ["train", "--model", str(half), "--data", str(data), "--reward", "numeric", "--out", str(out)]
    assert main([*given, "--observe", "tensorboard", "steps=1", "prompts=2", "samples=2", "held_out=2", "max_new_tokens=4"]) == 0
    assert list(out.rglob("events.out.tfevents*"))
    assert AutoModelForCausalLM.from_pretrained(out / "policy").dtype == torch.float32


def test_products_are_rounded_where_asked(quick: Path, data: Path) -> None:
    from guerdon.policies.products import RoundedLinear
    from guerdon.recipes.train import recipe

    for products in ("float32", "bfloat16"):
        policy = recipe(str(quick), str(data), "numeric", held_out=2, products=products).policy()
        rounded = [type(m) is RoundedLinear for m in policy.inner.modules()]
        assert any(rounded) == (products == "bfloat16") and str(policy.inner.dtype) == "torch.float32"
