"""What engine.py measures of other people's programs, in a Python that has them: `make peers` makes one.

    python benchmarks/peers.py trl FOLDER REPEATS                 one step of TRL's SDPOTrainer on a Hugging Face folder
    python benchmarks/peers.py llama.cpp FILE.gguf REPEATS TYPE   decoding with llama-cpp-python, as f32, bf16 or q8_0

Prints a line of JSON. Needs nothing of continualcode.
"""

from __future__ import annotations

import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPT, COMPLETION, FEEDBACK, K, RANK = 600, 60, 80, 20, 16


def trl(folder: str, repeats: str) -> dict[str, float]:
    """A step on the same amount of text: LoRA on all linear layers, top-K forward KL, float32. `step_s` is scoring and
    backward; Adam and the averaging of the teacher, after it, are not counted."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    row = {"prompt": _text(tokenizer, PROMPT), "privileged_context": _text(tokenizer, FEEDBACK - 20)}
    steps = int(repeats) + 1  # the first warms up
    with tempfile.TemporaryDirectory() as scratch:
        settings = SDPOConfig(
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=1,
            num_generations=1,
            max_prompt_length=None,  # 512 by default, for the student alone
            max_completion_length=COMPLETION,
            generation_kwargs={"min_new_tokens": COMPLETION},
            distillation_mode="topk_logits",
            distillation_topk=K,
            distillation_alpha=0.0,
            distillation_add_tail=True,
            include_environment_feedback=True,
            use_successful_as_teacher=False,
            activation_checkpointing=False,
            bf16=False,
            use_cpu=True,
            learning_rate=1e-5,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = SDPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=settings,
            train_dataset=Dataset.from_list([row] * steps),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=RANK, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        generating, stepping = _timed(trainer, "_generate"), _timed(trainer, "training_step")
        trainer.train()
    both, generate = statistics.median(stepping[1:]), statistics.median(generating[1:])
    return {"step_s": both - generate, "generate_s": generate, "peak_gb": peak()}


def llama_cpp(gguf: str, repeats: str, precision: str) -> dict[str, float]:
    """Decoding behind 600 tokens, with the file's weights converted to this precision first."""
    import llama_cpp as cpp

    types = {"f32": cpp.LLAMA_FTYPE_ALL_F32, "bf16": cpp.LLAMA_FTYPE_MOSTLY_BF16, "q8_0": cpp.LLAMA_FTYPE_MOSTLY_Q8_0}
    with tempfile.TemporaryDirectory() as scratch:
        converted = Path(scratch) / f"{precision}.gguf"
        how = cpp.llama_model_quantize_default_params()
        how.ftype, how.allow_requantize = types[precision], True
        if cpp.llama_model_quantize(gguf.encode(), str(converted).encode(), how) != 0:
            raise RuntimeError(f"llama.cpp could not convert {gguf} to {precision}")
        threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)  # half the cores by default
        model = cpp.Llama(str(converted), n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False)
        numbers = random.Random(0)
        prompt = [numbers.randrange(5, model.n_vocab()) for _ in range(PROMPT)]

        def generate(count: int) -> None:
            model.reset()
            for produced, _ in enumerate(model.generate(prompt, temp=1.0), 1):
                if produced == count:
                    break

        return {"decode_tok_s": rate(generate, int(repeats)), "peak_gb": peak()}


def rate(generate: Callable[[int], None], repeats: int) -> float:
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


def peak() -> float:
    """The most memory this process has held, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


def _timed(trainer: Any, name: str) -> list[float]:
    """Seconds of every call of a method from now on."""
    seconds: list[float] = []
    method = getattr(trainer, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - started)

    setattr(trainer, name, timed)
    return seconds


def _text(tokenizer: Any, count: int) -> str:
    """A text of exactly so many tokens."""
    text = " the" * count
    assert len(tokenizer(text)["input_ids"]) == count
    return text


if __name__ == "__main__":
    measure: dict[str, Callable[..., dict[str, float]]] = {"trl": trl, "llama.cpp": llama_cpp}
    print(json.dumps(measure[sys.argv[1]](*sys.argv[2:])))
