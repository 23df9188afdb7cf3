"""A whole Tinker service of one numpy matrix: row = previous token, column = logit of the next. Exact, so tests can compute.

Its clients have the interface of tinker's own (ServiceClient, TrainingClient, SamplingClient). `quirks` misbehave on
purpose, each as some real server was seen to; `futures` says what kind of future its methods return.
"""

import asyncio
import concurrent.futures
import itertools
from types import SimpleNamespace

import numpy as np
from tinker import types

SHIFTED, NO_LEADING_NONE, SHORT, NOT_A_NUMBER = "shifted", "no leading None", "one logprob short", "NaN"
NO_CANDIDATES, NO_TARGETS, NO_LAST_N, MANGLED = "no candidates", "no targets", "last_n ignored", "[N, K] mangled to [N]"
MEAN_LOSS, WEIGHTED_MEAN_LOSS, LIVE_SAMPLERS = "mean loss", "loss over weights", "samplers follow"
SILENT_LOSS, OUT_OF_STEP, TRAINER_SHIFTED = "no loss reported", "gradient fails", "trainer shifted"
NO_SPARSE = "targets in CSR refused"
TARGETS_SHIFTED, TRANSPOSED = "chosen tokens a row off", "[N, K] answered in another order"


def log_softmax(logits):
    return (
        logits
        - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - logits.max(-1, keepdims=True)
    )


class Awaitable:
    """What the newest SDK gives: awaited or asked for .result()."""

    def __init__(self, future):
        self._future = future

    def result(self, timeout=None):
        return self._future.result(timeout)

    async def result_async(self, timeout=None):
        return await asyncio.wait_for(asyncio.wrap_future(self._future), timeout)

    def __await__(self):
        return self.result_async().__await__()


class Blocking:
    """A future with nothing but .result()."""

    def __init__(self, future):
        self._future = future

    def result(self):
        return self._future.result()


def later(service, work, *, client=False):
    """The result of `work`, done in order on the service's one thread, in the kind of future the service gives."""
    future = service.thread.submit(work)
    match service.futures:
        case "awaitable":
            return Awaitable(future)
        case "concurrent":  # SDK 0.24: clients come at once, everything else in concurrent futures
            return future.result() if client else future
        case "blocking":
            return Blocking(future)


class BigramService:
    def __init__(self, vocabulary=24, seed=0, quirks=(), futures="awaitable", context=64, spread=2.0):
        self.vocabulary, self.quirks, self.futures, self.context = vocabulary, frozenset(quirks), futures, context
        self.logits = np.random.default_rng(seed).normal(size=(vocabulary, vocabulary)) * spread
        self.saved = {}
        self.log = []
        self.gate = None
        self.sparse = False
        """Whether the newest targets came in CSR."""
        self.thread = concurrent.futures.ThreadPoolExecutor(1)

    def close(self):
        self.thread.shutdown()

    def create_lora_training_client(self, base_model, rank=32, seed=None):
        def make():
            if base_model != "bigram":
                raise ValueError(f"unknown base model {base_model}")
            return BigramTraining(self, self.logits.copy(), rank)

        return later(self, make, client=True)

    def create_training_client_from_state_with_optimizer(self, path):
        def make():
            if path not in self.saved:
                raise ValueError(f"no checkpoint at {path}")
            logits, adam, rank = self.saved[path]
            training = BigramTraining(self, logits.copy(), rank)
            training.adam = [part.copy() if isinstance(part, np.ndarray) else part for part in adam]
            return training

        return later(self, make, client=True)

    def create_sampling_client(self, model_path=None, base_model=None):
        return later(self, lambda: BigramSampling(self, self.logits), client=True)

    def get_server_capabilities(self):
        return SimpleNamespace(supported_models=[SimpleNamespace(model_name="bigram", max_context_length=self.context)])


class BigramTraining:
    def __init__(self, service, logits, rank):
        self.service, self.logits, self.rank = service, logits, rank
        self.gradient = np.zeros_like(logits)
        self.adam = [0, np.zeros_like(logits), np.zeros_like(logits)]

    def get_info(self):
        return SimpleNamespace(model_data=SimpleNamespace(model_name="bigram"), lora_rank=self.rank)

    def get_tokenizer(self):
        return "the bigram tokenizer"

    def forward(self, data, loss_fn):
        return self._later("forward", lambda: self._pass(data, learn=False))

    def forward_backward(self, data, loss_fn):
        return self._later("forward_backward", lambda: self._pass(data, learn=True))

    def optim_step(self, adam_params):
        return self._later("optim_step", lambda: self._adam(adam_params))

    def save_state(self, name):
        def save():
            path = f"tinker://bigram/weights/{name}"
            adam = [part.copy() if isinstance(part, np.ndarray) else part for part in self.adam]
            self.service.saved[path] = (self.logits.copy(), adam, self.rank)
            return SimpleNamespace(path=path)

        return self._later("save_state", save)

    def save_weights_and_get_sampling_client(self):
        live = LIVE_SAMPLERS in self.service.quirks
        make = lambda: BigramSampling(self.service, self.logits if live else self.logits.copy())  # noqa: E731
        return later(self.service, self._logged("save_weights", make), client=True)

    def _later(self, name, work):
        return later(self.service, self._logged(name, work))

    def _logged(self, name, work):
        def run():
            if self.service.gate is not None:
                self.service.gate.wait(20)
            self.service.log.append(name)
            return work()

        return run

    def _pass(self, data, learn):
        if learn and OUT_OF_STEP in self.service.quirks:
            raise ValueError("out of memory")
        total, outputs, positions, weight_sum, trained = 0.0, [], 0, 0.0, 0
        gradient = np.zeros_like(self.gradient)
        for datum in data:
            inputs = np.array(datum.model_input.to_ints())
            self.service.sparse = datum.loss_fn_inputs["target_tokens"].sparse_crow_indices is not None
            if self.service.sparse and NO_SPARSE in self.service.quirks:
                raise ValueError("no such tensor")
            targets, weights = (dense(datum.loss_fn_inputs[name]) for name in ("target_tokens", "weights"))
            if MANGLED in self.service.quirks and targets.ndim == 2:
                targets, weights = targets.ravel()[: len(inputs)], weights.ravel()[: len(inputs)]
            if len(targets) != len(inputs):
                raise ValueError(f"{len(targets)} targets for {len(inputs)} inputs")
            columns, factors = targets.reshape(len(inputs), -1).astype(int), weights.reshape(len(inputs), -1)
            table = log_softmax(self.logits)
            logprobs = np.take_along_axis(table[inputs], columns, axis=1)
            total -= float((factors * logprobs).sum())
            positions, weight_sum = positions + len(inputs), weight_sum + factors.sum()
            trained += int((factors != 0).any(axis=1).sum())
            for previous, row, factor in zip(inputs, columns, factors, strict=True):
                for token, weight in zip(row, factor, strict=True):
                    gradient[previous] += weight * np.exp(table[previous])
                    gradient[previous, token] -= weight
            if TRAINER_SHIFTED in self.service.quirks:
                logprobs = np.roll(logprobs, -1, axis=0)
            if TRANSPOSED in self.service.quirks:
                logprobs = logprobs.T
            shape = list(targets.shape)
            outputs.append({"logprobs": types.TensorData(logprobs.reshape(shape), dtype="float32", shape=shape)})
        by = {MEAN_LOSS: positions, WEIGHTED_MEAN_LOSS: weight_sum}
        divisor = next((by[quirk] for quirk in by if quirk in self.service.quirks), 1.0)
        if learn:
            self.gradient += gradient / divisor
        metrics = {} if SILENT_LOSS in self.service.quirks else {"loss:sum": total / divisor}
        return SimpleNamespace(loss_fn_output_type="ArrayRecord", loss_fn_outputs=outputs, metrics=metrics)

    def _adam(self, params):
        steps, mean, square = self.adam
        mean = params.beta1 * mean + (1 - params.beta1) * self.gradient
        square = params.beta2 * square + (1 - params.beta2) * self.gradient**2
        self.adam = [steps + 1, mean, square]
        unbiased = mean / (1 - params.beta1 ** (steps + 1)), square / (1 - params.beta2 ** (steps + 1))
        self.logits -= (
            params.learning_rate * unbiased[0] / (np.sqrt(unbiased[1]) + params.eps)
        )  # in place: live samplers see it
        self.gradient = np.zeros_like(self.gradient)
        return SimpleNamespace(metrics={"grad_norm:mean": float(np.linalg.norm(mean))})


class BigramSampling:
    def __init__(self, service, logits):
        self.service, self.logits = service, logits
        self.random = np.random.default_rng(1)

    def sample(
        self,
        prompt,
        num_samples,
        sampling_params,
        include_prompt_logprobs=False,
        topk_prompt_logprobs=0,
        topk_sample_logprobs=0,
        target_prompt_logprobs=None,
        prompt_alt_tokens_k=0,
        prompt_logprobs_last_n=None,
    ):
        tokens = prompt.to_ints()

        def work():
            if len(tokens) + sampling_params.max_tokens > self.service.context:
                raise ValueError(f"the maximum context length is {self.service.context}")
            quirks = self.service.quirks
            last_n = None if NO_LAST_N in quirks else prompt_logprobs_last_n
            none = NO_CANDIDATES in quirks
            scored = self._scored(tokens, last_n) if include_prompt_logprobs else None
            return SimpleNamespace(
                sequences=[
                    self._sequence(tokens, sampling_params, 0 if none else topk_sample_logprobs)
                    for _ in range(num_samples)
                ],
                prompt_logprobs=scored,
                topk_prompt_logprobs=self._top(tokens, topk_prompt_logprobs)
                if topk_prompt_logprobs and not none
                else None,
                target_prompt_logprobs=None
                if target_prompt_logprobs is None or NO_TARGETS in quirks
                else self._targets(tokens, target_prompt_logprobs),
            )

        return later(self.service, work)

    def compute_logprobs(self, prompt, prompt_logprobs_last_n=None):
        last_n = None if NO_LAST_N in self.service.quirks else prompt_logprobs_last_n
        return later(self.service, lambda: self._scored(prompt.to_ints(), last_n))

    def _table(self):
        return log_softmax(self.logits)

    def _scored(self, tokens, last_n):
        table, quirks = self._table(), self.service.quirks
        own = [None, *(float(table[a, b]) for a, b in itertools.pairwise(tokens))]
        if last_n is not None:
            own[: len(own) - last_n] = [None] * (len(own) - last_n)
        if SHIFTED in quirks:
            own = [None, *own[2:], own[-1]]
        if NO_LEADING_NONE in quirks:
            own = own[1:]
        if SHORT in quirks:
            own = own[2:]
        if NOT_A_NUMBER in quirks:
            own[-1] = None
        return own

    def _top(self, tokens, k):
        rows = [self._best(previous, k) for previous in tokens[:-1]]
        return rows if NO_LEADING_NONE in self.service.quirks else [None, *rows]

    def _best(self, previous, k):
        row = self._table()[previous]
        return [(int(token), float(row[token])) for token in np.argsort(-row)[:k]]

    def _targets(self, tokens, asked):
        ids = dense(asked, pad=-1).astype(int)
        if len(ids) != len(tokens) - 1:
            raise ValueError(f"{len(ids)} rows of targets for {len(tokens)} tokens")
        table = np.roll(self._table(), 1 if TARGETS_SHIFTED in self.service.quirks else 0, axis=0)
        values = np.where(ids < 0, 0.0, np.take_along_axis(table[tokens[:-1]], np.maximum(ids, 0), axis=1))
        if asked.sparse_crow_indices is None:
            return types.TensorData(values, dtype="float32", shape=list(ids.shape))
        rows = np.repeat(np.arange(len(ids)), np.diff(asked.sparse_crow_indices))
        return types.TensorData(
            values[rows, asked.sparse_col_indices],
            dtype="float32",
            shape=list(ids.shape),
            sparse_crow_indices=asked.sparse_crow_indices,
            sparse_col_indices=asked.sparse_col_indices,
        )

    def _sequence(self, prompt, params, k):
        random = self.random if params.seed is None else np.random.default_rng(params.seed)
        table, previous, tokens, logprobs, best = self._table(), prompt[-1], [], [], []
        while len(tokens) < params.max_tokens:
            tempered = log_softmax(table[previous] / params.temperature) if params.temperature else table[previous]
            drawn = random.choice(len(tempered), p=np.exp(tempered)) if params.temperature else tempered.argmax()
            best.append(self._best(previous, k))
            logprobs.append(float(table[previous, drawn]))
            tokens.append(previous := int(drawn))
            if previous in (params.stop or ()):
                break
        stopped = tokens[-1] in (params.stop or ())
        return SimpleNamespace(
            tokens=tokens,
            logprobs=logprobs,
            stop_reason="stop" if stopped else "length",
            topk_logprobs=best if k else None,
        )


def dense(tensor, pad=0):
    """A TensorData as a numpy array of its own shape, CSR written out, without torch."""
    flat = np.asarray(tensor.data)
    if tensor.sparse_crow_indices is None:
        return flat if tensor.shape is None else flat.reshape(tensor.shape)
    whole = np.full(tensor.shape, pad, dtype=flat.dtype)
    rows = np.repeat(np.arange(tensor.shape[0]), np.diff(tensor.sparse_crow_indices))
    whole[rows, tensor.sparse_col_indices] = flat
    return whole
