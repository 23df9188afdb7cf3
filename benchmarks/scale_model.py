"""The model of scale.py: round_trips_server.py's, which answers at once, with replies that take turns. And a tokenizer."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from round_trips_server import MODEL, InstantSampling, InstantService, log_softmax
from tinker import types
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from continualcode.types import Tokens

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = """{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def make_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the usual kind, trained on the texts in half a second."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, show_progress=False))
    bpe.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=SPECIAL[0], eos_token=SPECIAL[2])
    tokenizer.chat_template = CHATML
    return tokenizer


class Service(InstantService):
    """Each training client goes through the replies from the first one on, and has weights of its own."""

    def __init__(self, replies: Sequence[Tokens], vocabulary: int) -> None:
        super().__init__(replies[0], vocabulary)
        self.replies = replies

    def create_lora_training_client(self, base_model: str, rank: int = 32, seed: int | None = None) -> Service:
        mine = copy.copy(self)
        mine.script = _Replies(self.replies)
        return mine

    def save_weights_and_get_sampling_client(self) -> InstantSampling:
        return _Sampling(self.script, log_softmax(self.logits))

    def get_server_capabilities(self) -> Any:
        return SimpleNamespace(supported_models=[SimpleNamespace(model_name=MODEL, max_context_length=2**20)])


class _Sampling(InstantSampling):
    def compute_logprobs(self, prompt: types.ModelInput, prompt_logprobs_last_n: int | None = None) -> Any:
        scored = self.sample(prompt, 1, types.SamplingParams(max_tokens=1), True, 0, 0, None, prompt_logprobs_last_n)
        return scored.prompt_logprobs


class _Replies(list[int]):
    """The tokens of a reply: the next one whenever a whole one is asked for, and not the few that a probe wants."""

    def __init__(self, replies: Sequence[Tokens]) -> None:
        super().__init__(replies[0])
        self._turns = itertools.cycle(replies)

    def __getitem__(self, part: Any) -> Any:
        if part.stop > 16:
            self[:] = next(self._turns)
        return super().__getitem__(part)
