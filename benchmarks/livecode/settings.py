"""Every setting of an automated run, read from key=value and checked. Knows nothing of how one is carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_type_hints

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, create_model, field_validator, model_validator

from continualcode.config import EMBEDDED_MODEL, HOSTED_MODEL, default_backend
from continualcode.errors import ConfigError
from continualcode.sdpo import SDPOConfig

MAY_CHANGE = frozenset(
    {
        "base_url",
        "log_path",
        "epochs",
        "max_steps",
        "save_every",
        "sandbox_concurrency",
        "wandb_project",
        "wandb_run_name",
        "trackio_project",
    }
)
"""Settings that a run may be resumed with other values of."""
OTHER_DEFAULTS = {"success_reward_threshold": 1.0}
"""Than SDPOConfig's: a program that passes a part of the tests is no solution to show."""
LEARNING_RATE = {"local": 3e-4, "tinker": 1e-5}
"""Of the embedded 135M model as for one correction; elsewhere ten times the paper's 1e-6, which is for all weights."""
EMBEDDED = {"max_tokens": 96, "prompt": "plain", "include_environment_feedback": False}
"""On the embedded model. What failed misleads it: shown that alone it solves fewer problems than without, shown a
solution more."""
_TYPES = get_type_hints(SDPOConfig)
_OfSDPO: Any = create_model(
    "_OfSDPO", **{f.name: (_TYPES[f.name], OTHER_DEFAULTS.get(f.name, f.default)) for f in fields(SDPOConfig)}
)


class Settings(_OfSDPO):
    """The loop's, named as the original's where that has them, and all of SDPOConfig's."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    backend: Literal["auto", "local", "tinker"] = Field("auto", description="auto: tinker with a key or base_url")
    model_name: str = Field("", description=f"default: {EMBEDDED_MODEL}, untuned (local), {HOSTED_MODEL} (tinker)")
    base_url: str | None = Field(None, description="address of a self-hosted Tinker-compatible server")
    checkpoint_path: str | None = Field(None, description="begin from these saved weights")
    lora_rank: int = Field(32, ge=1)
    renderer: str | None = Field(None, description="chat format; None: from the model's template")
    dataset: str = Field("own", description="own, release_v1 ... release_v6, deepcoder:NAME or a .jsonl; joined by +")
    since: str | None = Field(None, description="contests from this day on, 2024-08-31")
    until: str | None = Field(None, description="contests until this day")
    split: Literal["train", "test"] = "train"
    max_problems: int = Field(-1, ge=-1, description="-1: all")
    shuffle_seed: int = Field(42, ge=0, description="of the order, the LoRA's first weights and all samples")

    prompt: Literal["livecodebench", "plain"] = Field(
        "livecodebench", description="plain: few words and a worked example (the embedded model's default)"
    )
    train_signal: Literal["pure_sdpo", "hybrid", "grpo"] = Field(
        "pure_sdpo", description="hybrid: and rewards centred in the group; grpo: those alone, a baseline"
    )
    max_tokens: int = Field(16384, ge=1, description="longest answer (96 on the embedded model)")
    temperature: float = Field(1.0, description="training needs 1")
    num_rollouts: int = Field(4, ge=1, description="answers to each problem")
    batch_size: int = Field(16, ge=1, description="problems sampled at a time")
    min_sdpo_examples: int = Field(8, ge=1, description="answers collected before a step")
    epochs: int = Field(1, ge=1, description="passes over the problems")
    max_steps: int = Field(-1, ge=-1, description="optimiser steps at most; -1: as many as the epochs give")
    skip_solved: bool = Field(False, description="leave out a problem once all its rollouts passed")
    sandbox_concurrency: int = Field(
        64, ge=1, description="programs run at a time (the cores of this machine, at most)"
    )
    sandbox_timeout: float = Field(6.0, gt=0, description="seconds for one test")
    llm_feedback: bool = Field(False, description="let a model explain each failure, beside the failure itself")
    llm_feedback_model: str | None = Field(None, description="on the same service; None: the policy's first weights")
    llm_feedback_max_tokens: int = Field(512, ge=1)

    eval_every: int = Field(1, ge=0, description="steps between evaluations on held-out problems; 0: none")
    eval_size: int = Field(50, ge=0, description="held-out problems")
    eval_split: Literal["train", "test"] = "test"
    eval_rollouts: int | None = Field(None, ge=1, description="answers to each; None: as num_rollouts")
    log_path: Path = Field(Path("checkpoints/auto-sdpo"), description="the same command with the same folder resumes")
    save_every: int = Field(10, ge=1, description="steps between checkpoints")
    wandb_project: str | None = Field(None, description="report to Weights & Biases too")
    trackio_project: str | None = Field(None, description="report to trackio too")
    wandb_run_name: str | None = Field(None, description="of either; None: that of the folder")

    @property
    def sdpo(self) -> SDPOConfig:
        """The trainer's, by `train_signal`. GRPO asks no teacher, because there is nothing to show one."""
        given = {field.name: getattr(self, field.name) for field in fields(SDPOConfig)}
        if self.train_signal == "grpo":
            given |= {"distillation_weight": 0.0, "reward_weight": 1.0}
            given |= {"include_environment_feedback": False, "success_reward_threshold": float("inf")}
        return SDPOConfig(**given)

    @field_validator("*", mode="before")
    @classmethod
    def _read_none(cls, value: Any, info: ValidationInfo) -> Any:
        optional = NoneType in get_args(cls.model_fields[str(info.field_name)].annotation)
        return None if optional and isinstance(value, str) and value.lower() in ("none", "null") else value

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, given: dict[str, Any]) -> dict[str, Any]:
        """What depends on where the model runs and on other settings."""
        backend = given.get("backend", "auto")
        backend = default_backend(given.get("base_url")) if backend == "auto" else backend
        values = {"learning_rate": LEARNING_RATE.get(backend, 1e-5), "model_name": HOSTED_MODEL}
        if backend == "local":
            values["model_name"] = EMBEDDED_MODEL
            if given.get("model_name", EMBEDDED_MODEL) == EMBEDDED_MODEL:
                values |= EMBEDDED
        if given.get("train_signal") == "hybrid":
            values["reward_weight"] = 1.0
        if str(given.get("distillation_topk")).lower() == "none" and "distillation_topk" in given:
            values["alpha"] = 1.0
        return {**values, **given, "backend": backend}

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        weights = {"distillation_weight", "reward_weight"} & self.model_fields_set
        problems = {
            f"temperature={self.temperature}: training needs samples of the policy itself, drawn at temperature 1": (
                self.temperature != 1
            ),
            f"{', '.join(sorted(weights))} is for train_signal=hybrid, and this is {self.train_signal}": (
                weights and self.train_signal != "hybrid"
            ),
            f"eval_split={self.eval_split} is what is trained on; set eval_every=0 or another split": (
                self.eval_every and self.eval_size and self.eval_split == self.split
            ),
            "rehearse is for corrections as they come; a resumed run would not know of them": self.rehearse,
        }
        for problem, found in problems.items():
            if found:
                raise ConfigError(problem)
        _ = self.sdpo  # raises ConfigError where its values cannot work
        return self


def read_settings(words: Sequence[str]) -> Settings:
    """`key=value` words as Settings. Raises ConfigError that says what there is."""
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"expected key=value, found {word!r}; {_known(key)}")
        if key in values:
            raise ConfigError(f"{key} is given twice: {values[key]!r} and {value!r}")
        if key not in Settings.model_fields:
            raise ConfigError(f"unknown setting {key!r}; {_known(key)}")
        values[key] = value
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigError("\n".join(_fault(fault) for fault in error.errors(include_url=False))) from None


def described() -> str:
    """Every setting with its default, for --help; what is not said here SDPOConfig says."""
    known = {"learning_rate": ", ".join(f"{rate} ({backend})" for backend, rate in LEARNING_RATE.items())}
    of_sdpo = {field.name for field in fields(SDPOConfig)}
    rows = sorted(Settings.model_fields.items(), key=lambda item: item[0] in of_sdpo)
    return "\n".join(f"  {name} = {known.get(name, f.default)}    {f.description or ''}".rstrip() for name, f in rows)


def _fault(fault: Any) -> str:
    return f"{fault['loc'][0]}={fault['input']} is not allowed: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _known(key: str) -> str:
    near = get_close_matches(key.lstrip("-").replace("-", "_"), Settings.model_fields, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}=...? " if near else ""
    return f"{meant}There are: {', '.join(sorted(Settings.model_fields))}"
