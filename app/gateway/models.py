"""Which model a client means: clients of OpenAI's SDK name models without their provider."""

from __future__ import annotations

from app.catalog.snapshot import Snapshot
from app.errors import NotFound, ValidationError


def find_model(snapshot: Snapshot, name: str, workspace_id: str) -> str:
    """The ref or id of the model. A bare name must be that of one usable model only.

    Raises NotFound, and ValidationError naming the refs to choose from.
    """
    if snapshot.model(name) is not None or name.startswith("#/"):
        return name
    provider_name = name.partition(":")[0]
    if ":" in name and snapshot.provider_by_name(workspace_id, provider_name) is not None:
        return name
    found = [model for model in snapshot.models_named(name) if model.workspace_id == workspace_id]
    usable = [model for model in found if snapshot.is_usable(model)] or found
    if not usable:
        raise NotFound("LlmModel", name, path=("model",))
    if len(usable) > 1:
        refs = ", ".join(sorted(snapshot.ref(model) for model in usable))
        raise ValidationError("model", name, f"one of {refs}")
    return snapshot.ref(usable[0])
