"""What those endpoints of OpenAI share at the gateway that answer whole only."""

from __future__ import annotations

from typing import Any

from app.errors import TollgateError, ValidationError
from app.providers.dialect import Answered, ClientCall, EncodedError, StreamWriter
from app.providers.openai.errors import encode_error


class WholeAnswers:
    def stream_writer(self, call: ClientCall, answered: Answered) -> StreamWriter:
        raise ValidationError("stream", True, "false: this endpoint's answers come whole")

    def encode_error(self, error: TollgateError) -> EncodedError:
        return encode_error(error)


def refuse_streaming(fields: dict[str, Any]) -> None:
    value = fields.pop("stream", None)
    if value not in (None, False, "false"):
        raise ValidationError("stream", value, "false: this endpoint's answers come whole")
