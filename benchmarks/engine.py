"""The embedded engine against its peers on this machine: decoding, one SDPO step, memory.

    python benchmarks/engine.py                # smollm2-135m, medians of 5
    python benchmarks/engine.py --model PATH --repeats 9

Each engine runs in a process of its own, one after the other, on the same random tokens: 600 of prompt, 60 of
completion, 80 more in the teacher's prompt, top-K 20, LoRA rank 16. llama.cpp is measured where llama-cpp-python is
installed and --gguf names a file. Prints a table; exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

PROMPT, COMPLETION, FEEDBACK, K, RANK = 600, 60, 80, 20, 16
DECODE_RATIO, STEP_SECONDS, PEAK_GB = 1.5, 4.0, 2.5


def main() -> int:
    options = _options()
    if options.engine:
        measure = {"ours": ours, "int8": int8, "transformers": transformers, "llama.cpp": llama_cpp}[options.engine]
        print(json.dumps(measure(options)))
        return 0
    engines = ["ours", "int8", "transformers"]
    if options.gguf and find_spec("llama_cpp"):
        engines.append("llama.cpp")
    results = {engine: _in_its_own_process(engine, options) for engine in engines}
    for engine, numbers in results.items():
        print(f"{engine:14}" + "  ".join(f"{name} {value:.3g}" for name, value in numbers.items()))
    ratio = results["ours"]["decode_tok_s"] / results["transformers"]["decode_tok_s"]
    checks = [
        ("decode against transformers.generate", ratio, ratio >= DECODE_RATIO, f">= {DECODE_RATIO}x"),
        ("SDPO step, s", results["ours"]["step_s"], results["ours"]["step_s"] < STEP_SECONDS, f"< {STEP_SECONDS}"),
        ("peak memory, GB", results["ours"]["peak_gb"], results["ours"]["peak_gb"] < PEAK_GB, f"< {PEAK_GB}"),
    ]
    for name, value, reached, target in checks:
        print(f"{'ok    ' if reached else 'MISSED'} {name}: {value:.2f} (target {target})")
    return 0 if all(reached for _, _, reached, _ in checks) else 1


def ours(options: argparse.Namespace) -> dict[str, float]:
    """Decoding and the parts of one SDPO step, through the clients."""
    import torch
    from tinker import types

    training, sampler, prompt, completion, decode = _decoding(options, None)
    text = types.ModelInput.from_ints
    parts: dict[str, list[float]] = {name: [] for name in ("student_s", "teacher_s", "backward_s", "adam_s", "step_s")}
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
        sampler.sample(text(prompt), 1, types.SamplingParams(max_tokens=COMPLETION, seed=0, stop=[])).result()
    return {
        "decode_tok_s": decode,
        **{name: statistics.median(times) for name, times in parts.items()},
        "peak_gb": _peak(),
    }


def int8(options: argparse.Namespace) -> dict[str, float]:
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


def transformers(options: argparse.Namespace) -> dict[str, float]:
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

    return {"decode_tok_s": _rate(generate, options.repeats), "peak_gb": _peak()}


def llama_cpp(options: argparse.Namespace) -> dict[str, float]:
    import llama_cpp

    model = llama_cpp.Llama(options.gguf, n_ctx=1024, verbose=False)
    prompt = _random(PROMPT, 0, model.n_vocab())

    def generate(count: int) -> None:
        model.reset()
        for produced, _ in enumerate(model.generate(prompt, temp=1.0), 1):
            if produced == count:
                break

    return {"decode_tok_s": _rate(generate, options.repeats), "peak_gb": _peak()}


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

    rate = _rate(generate, options.repeats)
    return training, sampler, prompt, completion[:COMPLETION], rate


def _rate(generate: Callable[[int], None], repeats: int) -> float:
    """Tokens per second between the first and the 61st: reading the prompt does not count."""
    generate(COMPLETION)
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        generate(1)
        first = time.perf_counter()
        generate(1 + COMPLETION)
        rates.append(COMPLETION / ((time.perf_counter() - first) - (first - started)))
    return statistics.median(rates)


def _service(quantize: str | None) -> Any:
    from continualcode.local import ServiceClient

    return ServiceClient(quantize=quantize, dtype="float32")


def _tokens(training: Any, count: int, seed: int) -> list[int]:
    return _random(count, seed, len(training.get_tokenizer()))


def _random(count: int, seed: int, vocabulary: int) -> list[int]:
    import numpy as np

    return [int(token) for token in np.random.default_rng(seed).integers(5, vocabulary, count)]


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


def _in_its_own_process(engine: str, options: argparse.Namespace) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        "--engine",
        engine,
        "--model",
        options.model,
        "--repeats",
        str(options.repeats),
    ]
    command += ["--gguf", options.gguf] if options.gguf else []
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    numbers: dict[str, float] = json.loads(output.splitlines()[-1])
    return numbers


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gguf", default="", help="file for llama.cpp")
    parser.add_argument("--engine", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
