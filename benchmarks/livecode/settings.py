"""Every setting of an automated run, read from key=value and checked. Knows nothing of how one is carried out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from continualcode.config import EMBEDDED_MODEL, HOSTED_MODEL, default_backend
from continualcode.errors import ConfigError
from continualcode.sdpo import SDPOConfig

MAY_CHANGE = frozenset({"base_url", "log_path", "epochs", "max_steps", "save_every", "sandbox_concurrency"})
"""Settings that a run may be resumed with other values of, beside those of the trackers."""
OF_SDPO = {field.name: field for field in dataclasses.fields(SDPOConfig)}
SDPO_DEFAULTS: dict[str, object] = {"success_reward_threshold": 1.0}
"""A program that passes a part of the tests is no solution to show."""
LEARNING_RATE = {"local": 3e-4, "tinker": 1e-5}
"""Of the embedded 135M model as for one correction; elsewhere ten times the paper's 1e-6, which is for all weights."""
GRPO = {
    "distillation_weight": 0.0,
    "include_environment_feedback": False,
    "success_reward_threshold": float("inf"),
}
"""No teacher is asked where there is nothing to show it."""


class Settings(BaseModel):
    """The names are the original's where it has the setting; beside these all of SDPOConfig's can be given."""

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
    sdpo: SDPOConfig = Field(default=SDPOConfig(), exclude=True)

    @field_validator("*", mode="before")
    @classmethod
    def _read_none(cls, value: Any, info: ValidationInfo) -> Any:
        optional = NoneType in get_args(cls.model_fields[str(info.field_name)].annotation)
        return _none(value) if optional else value

    @field_validator("temperature")
    @classmethod
    def _only_the_policys_own(cls, value: float) -> float:
        if value != 1:
            raise ConfigError(
                f"temperature={value}: training needs samples of the policy itself, drawn at temperature 1"
            )
        return value

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if self.eval_every and self.eval_size and self.eval_split == self.split:
            raise ConfigError(f"eval_split={self.split} is what is trained on; set eval_every=0 or another split")
        if self.sdpo.rehearse:
            raise ConfigError("rehearse is for corrections as they come; a resumed run would not know of them")
        return self

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, given: dict[str, Any]) -> dict[str, Any]:
        """What depends on where the model runs, and SDPOConfig by `train_signal`."""
        values = {key: value for key, value in given.items() if key not in OF_SDPO}
        if values.get("backend", "auto") == "auto":
            values["backend"] = default_backend(values.get("base_url"))
        local = values["backend"] == "local"
        values.setdefault("model_name", EMBEDDED_MODEL if local else HOSTED_MODEL)
        if local and values["model_name"] == EMBEDDED_MODEL:
            values = {"max_tokens": 96, "prompt": "plain", **values}
        rate = {"learning_rate": LEARNING_RATE["local" if local else "tinker"]}
        weights = _weights(values.get("train_signal", "pure_sdpo"), given)
        values["sdpo"] = {**rate, **SDPO_DEFAULTS, **_given_of_sdpo(given), **weights}
        return values

    def recorded(self) -> dict[str, Any]:
        """All settings in force as JSON values."""
        sdpo = {key: repr(value) for key, value in dataclasses.asdict(self.sdpo).items()}
        return {**self.model_dump(mode="json"), **sdpo}


def read_settings(words: Sequence[str]) -> Settings:
    """`key=value` words as Settings. Raises ConfigError that says what there is."""
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"expected key=value, found {word!r}; {_known(key)}")
        if key in values:
            raise ConfigError(f"{key} is given twice: {values[key]!r} and {value!r}")
        if key not in OF_SDPO and (key not in Settings.model_fields or key == "sdpo"):
            raise ConfigError(f"unknown setting {key!r}; {_known(key)}")
        values[key] = value
    try:
        return Settings(**values)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigError("\n".join(_fault(fault) for fault in error.errors(include_url=False))) from None


def described() -> str:
    """Every setting with its default, for --help."""
    lines = [
        f"  {name} = {field.default}" + (f"    {field.description}" if field.description else "")
        for name, field in Settings.model_fields.items()
        if name != "sdpo"
    ]
    rate = ", ".join(f"{rate} ({backend})" for backend, rate in LEARNING_RATE.items())
    ours = {**SDPO_DEFAULTS, "learning_rate": rate}
    sdpo = [f"  {name} = {ours.get(name, field.default)}" for name, field in OF_SDPO.items()]
    return "\n".join([*lines, "and of the trainer (continualcode.sdpo.SDPOConfig says what they mean):", *sdpo])


def _weights(signal: str, given: dict[str, Any]) -> dict[str, Any]:
    own = {key for key in ("distillation_weight", "reward_weight") if key in given}
    if own and signal != "hybrid":
        raise ConfigError(f"{', '.join(sorted(own))} is for train_signal=hybrid, and this is {signal}")
    match signal:
        case "grpo":
            return {**GRPO, "reward_weight": 1.0}
        case "hybrid":
            return {} if "reward_weight" in given else {"reward_weight": 1.0}
    return {}


def _given_of_sdpo(given: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(SDPOConfig)
    sdpo = {
        key: _none(value) if NoneType in get_args(hints[key]) else value
        for key, value in given.items()
        if key in OF_SDPO
    }
    if sdpo.get("distillation_topk", 20) is None:
        sdpo.setdefault("alpha", 1.0)
    return sdpo


def _none(value: Any) -> Any:
    return None if isinstance(value, str) and value.lower() in ("none", "null") else value


def _fault(fault: Any) -> str:
    key = next((str(part) for part in reversed(fault["loc"]) if str(part) in {*Settings.model_fields, *OF_SDPO}), "")
    return f"{key}={fault['input']} is not allowed: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _known(key: str) -> str:
    names = [name for name in (*Settings.model_fields, *OF_SDPO) if name != "sdpo"]
    near = get_close_matches(key.lstrip("-").replace("-", "_"), names, n=1, cutoff=0.5)
    return (f"did you mean {near[0]}=...? " if near else "") + f"There are: {', '.join(sorted(names))}"
