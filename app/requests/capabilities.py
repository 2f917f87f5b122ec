"""What a request needs a model to be able to do, against what the catalog says it can."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from app.db.rows import LlmModel
from app.errors import ValidationError
from app.providers.messages import FormatKind, Image
from app.providers.operations import ChatRequest, OperationRequest

VISION: Final = "vision"
TOOLS: Final = "tools"
STRUCTURED_OUTPUT: Final = "structured_output"


def needed_capabilities(request: OperationRequest) -> Iterator[tuple[str, str]]:
    """Each capability, with the field that needs it."""
    if not isinstance(request, ChatRequest):
        return
    if any(isinstance(part, Image) for message in request.messages for part in message.parts):
        yield VISION, "messages"
    if request.tools:
        yield TOOLS, "tools"
    if request.response_format is not None and request.response_format.kind is FormatKind.JSON_SCHEMA:
        yield STRUCTURED_OUTPUT, "response_format"


def check_capabilities(request: OperationRequest, model: LlmModel) -> None:
    """Raises ValidationError. A model whose capabilities are not listed is taken to have them."""
    if not model.capabilities:
        return
    for capability, field in needed_capabilities(request):
        if capability not in model.capabilities:
            raise ValidationError(
                field,
                capability,
                f"within what the model {model.model_id!r} can do: {', '.join(sorted(model.capabilities))}",
            )
