"""From what a caller names to a model that may be used, or the reason why not."""

from __future__ import annotations

from typing import assert_never

from app.catalog.records import DEFAULT_WORKSPACE, LlmModel, LlmModelStatus, LlmProvider
from app.catalog.snapshot import Snapshot
from app.errors import ModelUnavailable, NotFound


def find_model(snapshot: Snapshot, key: str, workspace_id: str = DEFAULT_WORKSPACE, field: str = "model") -> LlmModel:
    """`key` is a row id or a reference. Raises NotFound."""
    model = snapshot.model(key)
    if model is None and (":" in key or key.startswith("#/")):
        model = snapshot.model_by_ref(key, workspace_id, field)
    if model is None or model.workspace_id != workspace_id:
        raise NotFound("LlmModel", key, path=(field,))
    return model


def usable_model(snapshot: Snapshot, key: str, workspace_id: str = DEFAULT_WORKSPACE, field: str = "model") -> LlmModel:
    """`find_model`, and raises ModelUnavailable, naming alternatives, where the model may not be used now."""
    model = find_model(snapshot, key, workspace_id, field)
    require_usable(snapshot, model, field)
    return model


def require_usable(snapshot: Snapshot, model: LlmModel, field: str = "model") -> None:
    reason = unusable_reason(model, snapshot.provider_of(model))
    if reason is not None:
        raise ModelUnavailable(snapshot.ref(model), reason, snapshot.alternatives(model), path=(field,))


def unusable_reason(model: LlmModel, provider: LlmProvider) -> str | None:
    """None where the model is active and its provider enabled."""
    match model.status:
        case LlmModelStatus.DEPRECATED:
            return "it is deprecated"
        case LlmModelStatus.INACTIVE:
            return "it is inactive"
        case LlmModelStatus.ACTIVE:
            return None if provider.is_enabled else f"its provider {provider.name!r} is disabled"
    assert_never(model.status)
