"""The environment, read once into one frozen Config."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import pydantic
from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.errors import ConfigurationError


class Config(BaseSettings):
    """Where Tollgate listens, keeps its data and what it allows. Each field is an environment variable.

    The names are `TOLLGATE_` and the field's name in capitals; `database_url` is `DATABASE_URL`.
    """

    model_config = SettingsConfigDict(env_prefix="TOLLGATE_", frozen=True, extra="ignore", populate_by_name=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    data_dir: Path = Path(".tollgate")
    database_url: Annotated[SecretStr | None, Field(validation_alias=AliasChoices("DATABASE_URL", "database_url"))] = (
        None
    )
    """Null: the embedded PostgreSQL in `data_dir`."""
    database_pool_size: Annotated[int, Field(ge=2, le=200)] = 8
    admin_token: SecretStr | None = None
    """Presets the first admin token. Null: one is made, printed once and kept in `data_dir`."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"
    """auto: console on a terminal, JSON lines elsewhere."""

    introspection: bool = True
    max_query_depth: Annotated[int, Field(ge=1)] = 12
    max_query_aliases: Annotated[int, Field(ge=1)] = 30
    max_query_complexity: Annotated[int, Field(ge=1)] = 20_000
    max_body_bytes: Annotated[int, Field(ge=1024)] = 10 * 1024 * 1024

    record_content: bool = False
    """Puts prompts and answers into spans. They are in no log and no metric, ever."""
    worker_metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Where a worker serves /metrics, at `host`. Null: nowhere."""
    worker_concurrency: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Calls that one worker process has under way at most, over all providers."""
    lease_seconds: Annotated[float, Field(ge=1, le=3600)] = 30
    """How long a worker may hold a request without a heartbeat."""
    connect_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 10
    read_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300
    """Between two pieces of a provider's answer."""
    call_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600
    gateway_concurrency: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    """Calls that one API process has under way at most for clients of the gateway."""
    gateway_wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 60
    """How long such a call waits for a permit before it is answered 429, where its client does not say."""
    gateway_max_waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Clients that may wait for permits at one API process; more are answered 503 at once."""
    gateway_max_body_bytes: Annotated[int, Field(ge=1024, le=48 * 1024 * 1024)] = 32 * 1024 * 1024
    """Of one call of the gateway, which may hold images or sound."""
    drain_seconds: Annotated[float, Field(ge=0, le=86_400)] = 30
    """How long a process that is told to stop lets its calls finish before it gives them back."""
    emulator_url: str | None = None
    """Null: calls go where the catalog says. Else every provider's calls go to this provider emulator."""
    default_max_output_tokens: Annotated[int, Field(ge=1)] = 4096
    """Reserved for a call that names no maximum, of a model whose maximum is not known."""

    @field_validator("database_url", "admin_token", "emulator_url", "worker_metrics_port", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @classmethod
    def load(cls) -> Self:
        """Reads the environment. Raises ConfigurationError that names the variable, the value and the bound."""
        try:
            return cls()
        except pydantic.ValidationError as error:
            raise ConfigurationError("; ".join(_explain(item) for item in error.errors())) from None


def _explain(item: Mapping[str, object]) -> str:
    location = item["loc"]
    assert isinstance(location, tuple)
    name = str(location[0])
    variable = name if name == "DATABASE_URL" else f"TOLLGATE_{name.upper()}"
    shown = "" if variable in ("DATABASE_URL", "TOLLGATE_ADMIN_TOKEN") else f" (it is {os.environ.get(variable)!r})"
    return f"{variable}: {item['msg']}{shown}"
