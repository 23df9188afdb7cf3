"""The training losses of the Tinker client, as functions of target log-probabilities; knows nothing of models.

N positions of a datum, K targets per position. All are sums over positions (and targets), not means.
Formulas: tinker-docs.thinkingmachines.ai/tinker/losses.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from continualcode.errors import AlignmentError, CapabilityError, ConfigError

SUPPORTED = ("cross_entropy", "importance_sampling", "ppo", "cispo", "dro")

_INPUTS = {
    "cross_entropy": ("weights",),
    "importance_sampling": ("logprobs", "advantages"),
    "ppo": ("logprobs", "advantages"),
    "cispo": ("logprobs", "advantages"),
    "dro": ("logprobs", "advantages"),
}
_CLIP_DEFAULTS = {"ppo": (0.8, 1.2), "cispo": (0.0, 4.0)}
_CLIP_KEYS = ("clip_low_threshold", "clip_high_threshold")
_DRO_BETA = 0.05
_SETTINGS = {"cross_entropy": ("constant_tokens",), "ppo": _CLIP_KEYS, "cispo": _CLIP_KEYS, "dro": ("beta",)}

Tensors = Mapping[str, torch.Tensor]
LossConfig = Mapping[str, float | str] | None


def elementwise(name: str, logprobs: torch.Tensor, inputs: Tensors, config: LossConfig = None) -> torch.Tensor:
    """The loss at each position, in the shape of `logprobs`; the loss of the datum is its sum.

    With r = exp(logprobs - inputs["logprobs"]) and advantages A:
    cross_entropy -w logp; importance_sampling -r A; ppo -min(r A, clip(r) A);
    cispo -stopgrad(clip(r)) logp A; dro -(logp A - beta/2 (logp - logq)^2).
    Clip thresholds default to (0.8, 1.2) for ppo and (0, 4) for cispo, beta to 0.05; they come from `config`, the
    thresholds also per position from `inputs`.
    """
    if name == "cross_entropy":
        return -logprobs * inputs["weights"]
    advantages, sampled = inputs["advantages"], inputs["logprobs"]
    if name == "dro":
        beta = float((config or {}).get("beta", _DRO_BETA))
        return -(logprobs * advantages - 0.5 * beta * (logprobs - sampled) ** 2)
    ratio = torch.exp(logprobs - sampled)
    if name == "importance_sampling":
        return -ratio * advantages
    low, high = (_threshold(name, side, inputs, config) for side in (0, 1))
    clipped = torch.maximum(torch.minimum(ratio, high.to(ratio)), low.to(ratio))
    if name == "ppo":
        return -torch.minimum(ratio * advantages, clipped * advantages)
    return -clipped.detach() * logprobs * advantages


def check(name: str, inputs: Tensors, length: int, config: LossConfig = None) -> None:
    """Raises unless `inputs` are exactly what the loss takes, one row per input token.

    CapabilityError for a loss this engine has not, ConfigError for inputs or settings that are missing or unknown,
    AlignmentError when lengths differ.
    """
    if name not in SUPPORTED:
        raise CapabilityError(f"the embedded engine has no loss {name!r}; it has {', '.join(SUPPORTED)}")
    needed = ("target_tokens", *_INPUTS[name])
    allowed = (*needed, *(_CLIP_KEYS if name in _CLIP_DEFAULTS else ()))
    if missing := [key for key in needed if key not in inputs]:
        raise ConfigError(f"{name} needs loss_fn_inputs {', '.join(missing)}; found {', '.join(inputs) or 'none'}")
    if unknown := [key for key in inputs if key not in allowed]:
        raise ConfigError(f"{name} takes no loss_fn_inputs {', '.join(unknown)}; it takes {', '.join(allowed)}")
    _check_config(name, config)
    targets = inputs["target_tokens"]
    if name != "cross_entropy" and targets.dim() != 1:
        raise ConfigError(f"{name} takes target_tokens of shape [N], found {list(targets.shape)}")
    for key, tensor in inputs.items():
        if tensor.shape != targets.shape or tensor.dim() not in (1, 2) or tensor.shape[0] != length:
            raise AlignmentError(
                f"{key} has shape {list(tensor.shape)}; target_tokens has {list(targets.shape)} and the model input "
                f"{length} tokens: every input needs one row per token (inputs are tokens[:-1], targets tokens[1:])"
            )


def _check_config(name: str, config: LossConfig) -> None:
    known = _SETTINGS.get(name, ())
    if unknown := [key for key in config or {} if key not in known]:
        raise ConfigError(f"{name} takes no loss_fn_config {', '.join(unknown)}; it takes {', '.join(known) or 'none'}")


def _threshold(name: str, side: int, inputs: Tensors, config: LossConfig) -> torch.Tensor:
    key = _CLIP_KEYS[side]
    if key in inputs:
        return inputs[key]
    return torch.tensor(float((config or {}).get(key, _CLIP_DEFAULTS[name][side])))
