"""The settings that loading a language model needs."""

from typing import Literal, Protocol


class TokenizerSettings(Protocol):
    """The settings of a member on which its token ids depend."""

    @property
    def model(self) -> str: ...

    @property
    def adapter(self) -> str | None: ...

    @property
    def append_eos(self) -> bool: ...

    @property
    def special_tokens(self) -> Literal["auto", "text", "parse"]: ...


class ModelSettings(TokenizerSettings, Protocol):
    """The settings of a member on which its model, adapter and tokenizer depend."""

    @property
    def layers(self) -> int | None: ...

    @property
    def quantization(self) -> Literal["auto", "none", "int8", "nf4", "int8_dynamic", "fp8"]: ...

    @property
    def dtype(self) -> Literal["auto", "float32", "float16", "bfloat16"]: ...

    @property
    def max_length(self) -> int: ...

    @property
    def padding(self) -> Literal["none", "longest", "max_length"]: ...

    @property
    def batch_tokens(self) -> int | Literal["auto"]: ...

    @property
    def gpus_per_replica(self) -> float: ...

    @property
    def trust_pickle(self) -> bool: ...


class MessageSettings(TokenizerSettings, Protocol):
    """The settings on which the token ids of chat messages depend."""

    @property
    def max_length(self) -> int: ...

    @property
    def chat_template(self) -> str | None: ...

    @property
    def system(self) -> str | None: ...
