"""Conversation to tokens and back over any tokenizer with a chat template and one format of replies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, groupby, takewhile

from continualcode.errors import ConfigError
from continualcode.renderers.dialogue import Dialogue
from continualcode.renderers.families import Family
from continualcode.renderers.literal import BREAK, Literal, unbroken
from continualcode.renderers.reading import END_THINK
from continualcode.renderers.template import Template, Tokenizer, probe
from continualcode.types import Conversation, Message, Reply, Tokens

ENDINGS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|return|>",
    "<|call|>",
    "<｜end▁of▁sentence｜>",
    "<|endoftext|>",
    "<|end_of_text|>",
)
CACHED_PIECES = 512


class ChatTemplateRenderer:
    """A `Renderer`. Tools that the template does not know are listed in the system message instead.

    Text of files and people never becomes a control token. Pieces of a prompt are encoded apart, so that a prompt
    begins with the tokens of the earlier prompt and of the completion wherever the template keeps what it wrote.
    """

    def __init__(self, tokenizer: Tokenizer, family: Family) -> None:
        if not tokenizer.chat_template:
            raise ConfigError("this tokenizer has no chat template: use the instruct model's, or set chat_template")
        self._tokenizer, self._family = tokenizer, family
        self._template = Template(tokenizer)
        call_id = family.call_id("qzcall", 0)
        self._abilities = probe(self._template, family.arguments({"qzv": "qzw"}), call_id)
        self._dialogue = Dialogue(family, self._abilities)
        self._stop = _stop_ids(tokenizer, self._abilities.ending)
        self._added = {index: token for index, token in tokenizer.added_tokens_decoder.items() if str(token).strip()}
        control = [str(token) for token in self._added.values()]
        self._literal = Literal(control, own=[str(token) for token in self._added.values() if token.special])
        self._encode_piece = lru_cache(CACHED_PIECES)(self._encode_uncached)

    @property
    def family(self) -> str:
        """The name of the family whose format is read and written."""
        return self._family.name

    @property
    def stop(self) -> Tokens:
        """Token ids that end a completion, the model's own end-of-turn token first."""
        return self._stop

    def prompt(self, conversation: Conversation) -> Tokens:
        """Raises ConfigError when the template refuses the conversation."""
        messages, tools = self._dialogue.write(self._literal.conversation(conversation))
        text = self._template.render(messages, tools, ask=True)
        opening = self._abilities.opening
        return self._encode(text.replace(opening, opening + BREAK) if opening else text)

    def parse(self, tokens: Tokens) -> Reply:
        """Reads up to the first stop token. Never raises on tokens of the vocabulary.

        A tag that is a token of the vocabulary counts as that token only, not spelt out in others.
        """
        body = list(takewhile(lambda token: token not in self._stop, tokens))
        runs = [(added, self._decode(list(run))) for added, run in groupby(body, self._added.__contains__)]
        text = "".join(run if added else self._literal.text(run) for added, run in runs)
        return unbroken(self._family.format.read(text, thinking=self._opened(text)), raw=self._decode(body))

    def completion(self, message: Message) -> Tokens:
        """As the template itself would write the message after a prompt, else as the family's format does."""
        literal = self._literal.message(message)
        text = self._templated(literal)
        if text is None:
            text = self._family.format.write(literal, thinking=self._abilities.opens_thinking)
        tokens = self._encode(text)
        body = tuple(takewhile(lambda token: token not in self._stop, tokens))
        return tokens[: len(body) + 1] if len(body) < len(tokens) else (*body, self._stop[0])

    def decode(self, token: int) -> str:
        return self._decode([token])

    def _templated(self, message: Message) -> str | None:
        """What the template writes for this message where it asks for one; None if that is not all of the message.

        A call is seen with a result behind it, as in every later prompt: Qwen 3 treats a last message differently.
        """
        question, result = Message("user", "?"), Message("tool", "", tool="?")
        before, _ = self._dialogue.write(Conversation((question,)))
        after, _ = self._dialogue.write(Conversation((question, message, *[result for _ in message.calls])))
        asked = self._template.render(before, ask=True)
        told = self._template.render(after, ask=False)
        if not told.startswith(asked):
            return None
        written = self._upto_stop(told[len(asked) :])
        reply = self._family.format.read(written, thinking=self._opened(written))
        names = [call.name for call in reply.calls], [call.name for call in message.calls]
        same = reply.text == message.content.strip() and reply.thinking == message.thinking.strip()
        return told[len(asked) :] if same and names[0] == names[1] else None

    def _opened(self, text: str) -> bool:
        """Whether the reply begins inside thinking. R1's prompt opens it after a request, not after a tool's result."""
        return self._abilities.opens_thinking and (self._abilities.opens_after_results or END_THINK in text)

    def _upto_stop(self, text: str) -> str:
        return min((text.partition(self.decode(token))[0] for token in self._stop), key=len)

    def _encode(self, text: str) -> Tokens:
        pieces = [piece for piece in text.split(BREAK) if piece]
        if (known := self._encode_piece.cache_info().maxsize) is not None and 2 * len(pieces) > known:
            # A cache that is too small for one conversation forgets each piece just before it comes up again.
            self._encode_piece = lru_cache(4 * len(pieces))(self._encode_uncached)
        return tuple(chain.from_iterable(map(self._encode_piece, pieces)))

    def _encode_uncached(self, text: str) -> Tokens:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _stop_ids(tokenizer: Tokenizer, ending: str) -> Tokens:
    """The token that the template puts behind an answer, the tokenizer's own, and the known ones of its vocabulary."""
    ids = {str(token): index for index, token in tokenizer.added_tokens_decoder.items()}
    behind = [ids[text] for text in ids if text.strip() and ending.lstrip().startswith(text)]
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    stop = tuple(dict.fromkeys((*behind, *own, *(ids[text] for text in ENDINGS if text in ids))))
    if not stop:
        raise ConfigError(
            f"this tokenizer has no end-of-turn token: eos_token is unset, and none of {', '.join(ENDINGS)}"
        )
    return stop
