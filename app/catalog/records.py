"""The catalog's rows, ids and the inputs of its changes."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Final, NewType

from app.access.records import DEFAULT_WORKSPACE, WorkspaceId
from app.db.rows import LlmModel, LlmModelStatus, LlmModelType, LlmProvider, ModelPrice, SystemSetting, UsageUnit

__all__ = [
    "DEFAULT_WORKSPACE",
    "UNSET",
    "CreateModel",
    "CreateProvider",
    "LlmModel",
    "LlmModelId",
    "LlmModelStatus",
    "LlmModelType",
    "LlmProvider",
    "ModelPrice",
    "PriceInput",
    "ProviderId",
    "SystemSetting",
    "Unset",
    "UpdateModel",
    "UpdateProvider",
    "UsageUnit",
    "WorkspaceId",
]

ProviderId = NewType("ProviderId", str)
LlmModelId = NewType("LlmModelId", str)
"""The row's id; the name that the provider knows the model by is `LlmModel.model_id`."""


class Unset(Enum):
    """The type of UNSET: a field that a partial update leaves as it is, where None would clear it."""

    UNSET = "UNSET"


UNSET: Final = Unset.UNSET

PriceInput = str | int | Decimal
"""Per 1,000,000 tokens, as `money.parse_price` takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateProvider:
    """`tokens_per_minute` None: tokens are not limited. `base_url` None: the adapter's own."""

    name: str
    display_name: str
    adapter: str = "openai"
    base_url: str | None = None
    max_parallel_requests: int = 1
    requests_per_minute: int = 60
    tokens_per_minute: int | None = None
    is_enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateProvider:
    """A provider's name is for life: requests, ledger lines and settings refer to models by it."""

    display_name: str | Unset = UNSET
    adapter: str | Unset = UNSET
    base_url: str | Unset | None = UNSET
    max_parallel_requests: int | Unset = UNSET
    requests_per_minute: int | Unset = UNSET
    tokens_per_minute: int | Unset | None = UNSET
    is_enabled: bool | Unset = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateModel:
    """A cost of None is not known, which is never taken for zero."""

    provider_id: str
    model_id: str
    display_name: str
    cost_input_per_million: PriceInput | None = None
    cost_output_per_million: PriceInput | None = None
    description: str | None = None
    model_type: LlmModelType = LlmModelType.TEXT
    capabilities: tuple[str, ...] = ()
    context_window: int | None = None
    max_output_tokens: int | None = None
    is_default: bool = False
    parameter_rules: Any = None
    """JSON, as `parameters.parse_rules` takes it. None: the protocol's own parameters."""
    allows_unknown_parameters: bool = False
    connect_timeout_seconds: float | None = None
    """None: the process's default, as for the next two."""
    read_timeout_seconds: float | None = None
    total_timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateModel:
    """`model_id` and `provider_id` are for life. A status of DEPRECATED also ends being the default."""

    display_name: str | Unset = UNSET
    cost_input_per_million: PriceInput | Unset | None = UNSET
    cost_output_per_million: PriceInput | Unset | None = UNSET
    description: str | Unset | None = UNSET
    model_type: LlmModelType | Unset = UNSET
    capabilities: tuple[str, ...] | Unset = UNSET
    context_window: int | Unset | None = UNSET
    max_output_tokens: int | Unset | None = UNSET
    parameter_rules: Any = UNSET
    allows_unknown_parameters: bool | Unset = UNSET
    connect_timeout_seconds: float | Unset | None = UNSET
    read_timeout_seconds: float | Unset | None = UNSET
    total_timeout_seconds: float | Unset | None = UNSET
    status: LlmModelStatus | Unset = UNSET
