"""benchmarks/auto_train.py: its settings, what a model is shown, a killed run that goes on as if it had not been."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from continualcode.errors import ConfigError
from continualcode.local import ServiceClient
from continualcode.policy import Policy
from continualcode.sdpo import SDPOTrainer
from continualcode.testing import BytesRenderer, ScriptedBackend, ScriptedSampler
from continualcode.types import Sampling

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "auto_train.py"
SECRET = "qzprivate"
RIGHT, WRONG = "```python\nprint(input()[::-1])\n```", "```python\nprint(input())\n```"


@pytest.fixture(scope="session")
def settings_of(livecode):
    return livecode("settings").read_settings


@pytest.fixture
def problem(livecode):
    made = livecode("problem")
    public = (made.Case("ab\n", "ba\n"),)
    return made.Problem(
        "reverse", "Reverse", "Print the line reversed.", public, (made.Case(f"x{SECRET}\n", f"{SECRET[::-1]}x\n"),)
    )


class Recording(ScriptedBackend):
    """Keeps every prompt that reaches its model."""

    def __init__(self, replies):
        self.prompts = []
        super().__init__(replies)

    def __setattr__(self, name, value):
        if isinstance(value, ScriptedSampler):
            forward = value.forward
            value.forward = lambda prompt, completion: (
                self.prompts.append(bytes(prompt).decode()),
                forward(prompt, completion),
            )[1]
        super().__setattr__(name, value)


@pytest.fixture
def train(livecode, settings_of, tmp_path):
    """Runs on problems with a scripted model; gives the last state and the log's lines."""

    async def trained(backend, problems, *words, held_out=(), helper=None):
        settings = settings_of(["backend=local", "model_name=scripted", f"log_path={tmp_path / 'run'}", *words])
        settings.log_path.mkdir(exist_ok=True)
        ask, made = livecode("prompts").conversation, livecode("run")
        model = made.Model(backend, BytesRenderer(), helper)
        trainer = SDPOTrainer(backend, model.renderer, settings.sdpo)
        weights = made.Weights(backend, trainer.teacher, tmp_path)
        async with livecode("grader").Grader() as grader:
            with livecode("record").Record(settings) as record:
                run = made.Run(settings, model, trainer, weights, grader, problems, held_out, record, ask)
                state = await run.train(livecode("state").State())
        return state, livecode("record").read_log(settings.log_path / "log.jsonl")

    return trained


async def test_a_failure_is_learned_from_with_its_siblings_solution_and_what_went_wrong(train, problem):
    backend = Recording([WRONG, RIGHT, "no idea"])
    state, log = await train(backend, [problem], "num_rollouts=3", "min_sdpo_examples=2")
    [batch, step] = log
    assert (batch["answers"], batch["reward"], batch["mixed"]) == (3, pytest.approx(1 / 3, abs=1e-6), 1)
    assert (state.step, step["lessons"]) == (1, 2), "the one success has no sibling to learn from"
    told = [prompt for prompt in backend.prompts if "Correct solution" in prompt]
    assert told
    assert all("print(input()[::-1])" in prompt for prompt in told)
    assert any("no ```python code block" in prompt for prompt in told)
    assert any("ab" in prompt.split("earlier attempt")[1] for prompt in told), "the public case that failed"


async def test_nothing_of_a_private_case_reaches_a_model(train, problem):
    spoiler = "```python\nline = input()\nprint(line if line.startswith('x') else line[::-1])\n```"
    crash = "```python\nline = input()\nassert not line.startswith('x'), line\nprint(line[::-1])\n```"
    helper = Recording(["It only works for short lines."] * 4)
    backend = Recording([*[spoiler] * 2, spoiler, crash, WRONG, RIGHT, *[spoiler] * 2])
    explaining = Policy(helper, BytesRenderer(), Sampling())
    await train(backend, [problem], "num_rollouts=4", "eval_rollouts=2", held_out=[problem], helper=explaining)
    prompts = backend.prompts + helper.prompts
    assert len(prompts) > 10
    assert not [prompt for prompt in prompts if SECRET in prompt or SECRET[::-1] in prompt]


async def test_grpo_asks_no_teacher_and_moves_on_rewards_alone(train, problem):
    backend = Recording([WRONG, RIGHT])
    state, log = await train(backend, [problem], "train_signal=grpo", "num_rollouts=2", "min_sdpo_examples=2")
    assert (state.step, log[1]["loss"]) == (1, 0)
    assert not [prompt for prompt in backend.prompts if "unsuccessful" in prompt or "Correct solution" in prompt]
    wrong, right = (sorted({*example.weights_TK[example.ids_TK >= 0]} - {0}) for example in backend.steps[0])
    assert wrong[-1] < 0 < right[0]


async def test_a_problem_is_left_out_once_all_its_answers_passed(train, problem, livecode):
    other = dataclasses.replace(problem, id="other")
    script = {problem.id: RIGHT, other.id: WRONG}
    ids = [problem.id, other.id]
    order = [ids[i] for i in np.random.default_rng([42, 0]).permutation(2)]
    backend = Recording([script[name] for name in order for _ in range(2)] + [WRONG] * 4)
    words = ("num_rollouts=2", "batch_size=1", "epochs=3", "skip_solved=True", "min_sdpo_examples=1", "eval_every=0")
    state, log = await train(backend, [problem, other], *words)
    assert state.solved == (problem.id,)
    assert [line["reward"] for line in log if line["event"] == "batch"].count(1.0) == 1
    assert sum(line["event"] == "batch" for line in log) == 4


def test_every_epoch_has_every_problem_once_and_a_batch_never_two_epochs(livecode, settings_of):
    settings, state = settings_of(["epochs=3", "batch_size=4"]), livecode("state").State()
    ids, drawn = [f"problem-{i}" for i in range(10)], []
    while (found := livecode("state").next_batch(state, ids, settings))[0]:
        drawn.append(found[0])
        state = state.model_copy(update={"place": found[1]})
    assert [len(batch) for batch in drawn] == [4, 4, 2] * 3
    epochs = [list(itertools.chain(*drawn[i : i + 3])) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize(("samples", "passed"), [(1, 0), (1, 1), (5, 0), (5, 2), (5, 5), (6, 1)])
def test_pass_at_k_is_the_share_of_all_choices_of_k_samples_that_have_one_that_passed(livecode, samples, passed):
    outcomes = [True] * passed + [False] * (samples - passed)
    for k in range(1, samples + 1):
        chosen = [any(choice) for choice in itertools.combinations(outcomes, k)]
        assert livecode("evaluation").pass_at_k(samples, passed, k) == pytest.approx(np.mean(chosen))


def test_settings_are_the_loops_and_the_trainers(settings_of):
    settings = settings_of(["backend=tinker", "alpha=0.5", "distillation_topk=all", "is_clip=None", "max_problems=7"])
    assert (settings.max_problems, settings.max_tokens, settings.prompt) == (7, 16384, "livecodebench")
    assert (settings.sdpo.alpha, settings.sdpo.distillation_topk, settings.sdpo.is_clip) == (0.5, "all", None)
    sampled = settings_of(["backend=local", "distillation_topk=None", "train_signal=hybrid", "reward_weight=0.3"])
    assert (sampled.sdpo.alpha, sampled.sdpo.reward_weight, sampled.sdpo.distillation_weight) == (1.0, 0.3, 1.0)
    assert settings_of(["train_signal=grpo"]).sdpo.distillation_weight == 0
    embedded = settings_of(["backend=local"]), settings_of(["backend=local", "include_environment_feedback=True"])
    assert [each.sdpo.include_environment_feedback for each in embedded] == [False, True]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lernrate=1", "did you mean learning_rate=...? There are: alpha, backend, "),
        ("train", "expected key=value, found 'train'; "),
        ("temperature=0.7", "temperature=0.7: training needs samples of the policy itself"),
        ("num_rollouts=none", "num_rollouts=none is not allowed: "),
        ("train_signal=ppo", "train_signal=ppo is not allowed: input should be 'pure_sdpo', 'hybrid' or 'grpo'"),
        ("alpha=2", "alpha must lie in [0, 1], not 2"),
        ("reward_weight=1", "reward_weight is for train_signal=hybrid, and this is pure_sdpo"),
        ("eval_split=train", "eval_split=train is what is trained on"),
        ("rehearse=2", "rehearse is for corrections as they come"),
    ],
)
def test_a_wrong_setting_is_said_with_what_there_is(settings_of, word, said):
    with pytest.raises(ConfigError) as raised:
        settings_of([word])
    assert said in str(raised.value)


def test_a_folder_is_resumed_with_the_same_settings_only(livecode, settings_of, tmp_path):
    resumed = livecode("state").resumed
    first = ["backend=local", f"log_path={tmp_path}", "alpha=1"]
    state = livecode("state").State(place=3, step=1)
    assert resumed(tmp_path, settings_of(first)) == livecode("state").State()
    (tmp_path / "state.json").write_text(state.model_dump_json(), "utf-8")
    assert resumed(tmp_path, settings_of([*first, "max_steps=9", "trackio_project=x"])) == state
    with pytest.raises(ConfigError, match=r"other settings: alpha=1.0 there and 0.5 here, lora_rank=32 there and 8"):
        resumed(tmp_path, settings_of([*first[:2], "alpha=.5", "lora_rank=8"]))


def test_a_tracker_gets_the_numbers_and_one_that_is_not_there_is_named(livecode, settings_of, tmp_path, monkeypatch):
    got = []
    trackio = ModuleType("trackio")
    trackio.init = lambda **given: got.append(given["project"])
    trackio.log = lambda numbers, step: got.append((step, numbers))
    trackio.finish = lambda: got.append("finished")
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    with livecode("record").Record(settings_of([f"log_path={tmp_path}", "trackio_project=mine"])) as record:
        record.event("eval", 3, {"pass@1": 1 / 3}, 0.5)
    assert got == ["mine", (3, {"eval/pass@1": 0.333333, "eval/seconds": 0.5}), "finished"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="wandb_project is set, and wandb is not installed: pip install wandb"):
        livecode("record").Record(settings_of([f"log_path={tmp_path}", "wandb_project=mine"]))


def test_the_plot_is_drawn_from_the_log(livecode, settings_of, tmp_path):
    pytest.importorskip("matplotlib")
    with livecode("record").Record(settings_of([f"log_path={tmp_path}"])) as record:
        for step in range(3):
            record.event("eval", step, {"pass@1": step / 9, "pass@4": step / 3}, 1.0)
            record.event("batch", step, {"reward": 0.1}, 1.0)
    assert livecode("record").plot(tmp_path).read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folder of a random Llama whose tokens are characters, and of problems that it does not solve."""
    folder = tmp_path_factory.mktemp("tiny")
    characters = ["<s>", "</s>", "<unk>", "\n", *map(chr, range(32, 127))]
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(characters),
        max_position_embeddings=8192,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.5,
        **sizes,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(characters)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    fast.save_pretrained(folder)
    case = [{"input": "1\n", "output": "1\n"}]
    rows = [
        {"id": f"p{i}", "title": "", "statement": f"Print {i}.", "public": case, "private": case} for i in range(4, 14)
    ]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder


def command(tiny, folder, *more):
    words = (
        "backend=local prompt=plain epochs=2 batch_size=2 num_rollouts=2 min_sdpo_examples=3 max_tokens=12 lora_rank=2"
    )
    words += " save_every=2 eval_every=2 learning_rate=0.01 teacher_regularization=ema teacher_update_rate=0.3"
    paths = f"model_name={tiny} dataset={tiny / 'problems.jsonl'} log_path={folder}"
    given = dict(word.split("=", 1) for word in (*words.split(), *paths.split(), *more))
    return [sys.executable, str(SCRIPT), *(f"{key}={value}" for key, value in given.items())]


def lines(file):
    return file.read_bytes().count(b"\n") if file.exists() else 0


def without_seconds(folder):
    """The log's whole lines."""
    whole = (folder / "log.jsonl").read_text("utf-8").rpartition("\n")[0].splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in whole]


def test_a_run_that_is_killed_again_and_again_has_the_log_of_one_that_never_was(tiny, tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(tiny, whole), env=env, check=True, capture_output=True, timeout=120)
    expected = without_seconds(whole)
    kinds = [line["event"] for line in expected]
    assert kinds.count("step") >= 6
    assert kinds.count("eval") == kinds.count("step") // 2 + 1
    state, log = killed / "state.json", killed / "log.jsonl"
    for reached in (
        lambda: lines(log) >= 4,  # nothing is saved yet
        state.exists,  # the moment it is
        lambda: lines(log) >= 14,  # in a run that was resumed
    ):
        process = subprocess.Popen(command(tiny, killed), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not reached():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert without_seconds(killed) != expected
    subprocess.run(command(tiny, killed), env=env, check=True, capture_output=True, timeout=120)
    assert without_seconds(killed) == expected


def test_a_run_on_a_server_goes_on_where_it_was_saved(tiny, tmp_path, wire_server):
    with ServiceClient(state_dir=tmp_path / "server", device="cpu", dtype="float32") as service:
        more = (
            "backend=tinker",
            f"base_url={wire_server(service).url}",
            "save_every=1",
            "teacher_regularization=frozen",
        )
        for steps in (1, 3):
            words = command(tiny, tmp_path / "run", *more, f"max_steps={steps}")
            done = subprocess.run(words, env=os.environ, capture_output=True, timeout=120)
            assert done.returncode == 0, done.stderr.decode()
    steps = [line for line in without_seconds(tmp_path / "run") if line["event"] == "step"]
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert len({line["loss"] for line in steps}) == 3
