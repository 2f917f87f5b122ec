"""How Google's models are told to think, and how they prove what they thought.

https://ai.google.dev/gemini-api/docs/thinking and .../gemini-api/docs/openai, whose budgets for each effort these are
(2026-11-20)
"""

from __future__ import annotations

import re
from typing import Any, Final

from app.providers.wire import Parameters, refused

NO_SIGNATURE: Final = "skip_thought_signature_validator"
"""Google's own word for a call that another model made, or whose signature the client did not keep.

https://ai.google.dev/gemini-api/docs/thought-signatures (2026-11-20)
"""

_GENERATION: Final = re.compile(r"(?:models/)?gemini-(?P<number>\d+)")
_BUDGETS: Final = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
_LEVELS: Final = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH"}


def needs_signatures(model_id: str) -> bool:
    """From the third generation on a function call without a signature is refused."""
    return _generation(model_id) >= 3


def thinking_config(model_id: str, parameters: Parameters) -> dict[str, Any] | None:
    has_levels = _generation(model_id) >= 3
    effort = parameters.take_choice("reasoning_effort", _LEVELS if has_levels else _BUDGETS)
    thinking = parameters.take("thinking")
    if thinking is not None:
        if effort is not None:
            raise refused("parameters.thinking", "cannot stand beside reasoning_effort for Google's models")
        return _from_thinking(thinking)
    if effort is None:
        return None
    return {"thinkingLevel" if has_levels else "thinkingBudget": effort}


def _from_thinking(thinking: Any) -> dict[str, Any]:
    """From Anthropic's form."""
    match thinking:
        case {"type": "disabled", **rest} if not rest:
            return {"thinkingBudget": 0}
        case {"type": "adaptive", **rest} if not rest:
            return {"thinkingBudget": -1, "includeThoughts": True}
        case {"type": "enabled", "budget_tokens": int(budget), **rest} if not rest:
            return {"thinkingBudget": budget, "includeThoughts": True}
    raise refused("parameters.thinking", f"cannot be expressed for Google's models: {thinking!r:.80}")


def _generation(model_id: str) -> int:
    found = _GENERATION.match(model_id)
    return int(found["number"]) if found else 0
