"""The fields that a file may give, in the order of exports: their columns, kinds, bounds and defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum, StrEnum
from typing import Any, Final

from app.catalog import validation
from app.catalog.changes import model_values, provider_values
from app.catalog.records import (
    CreateModel,
    CreateProvider,
    LlmModelStatus,
    LlmModelType,
    UpdateModel,
    UpdateProvider,
    UsageUnit,
)
from app.configuration import nodes
from app.configuration.nodes import Node, Scalar, Sequence
from app.errors import ValidationError
from app.providers.registry import ADAPTERS


class Form(StrEnum):
    """How a value is written."""

    TEXT = "text"
    INTEGER = "an integer"
    NUMBER = "a number"
    BOOLEAN = "true or false"
    WORD = "word"
    WORDS = "a list of words"
    JSON = "json"


class Required(Enum):
    """The type of REQUIRED: a new row must be given the field."""

    REQUIRED = "REQUIRED"


REQUIRED: Final = Required.REQUIRED


@dataclass(frozen=True, slots=True)
class Field:
    """`path` is what the file names it, "limits.requestsPerMinute". `default` is that of a new row."""

    path: str
    column: str
    form: Form
    check: Callable[[Any], Any]
    about: str
    default: Any = REQUIRED
    nullable: bool = False
    words: type[StrEnum] | None = None

    @property
    def name(self) -> str:
        """As errors of the catalog's own validation name it."""
        return self.path.rpartition(".")[2]

    def read(self, node: Node) -> Any:
        """The value to store. Raises ValidationError."""
        value = self._written(node)
        if value is None and not self.nullable:
            raise ValidationError(self.name, None, "given, or left out where it is to stay as it is")
        return self.check(value)

    def stored(self, value: Any) -> Any:
        """How the catalog's validation writes a stored value, so that spaces around it are no difference."""
        try:
            return self.check(value)
        except ValidationError:
            return value

    def _written(self, node: Node) -> Any:
        if isinstance(node, Scalar) and node.is_null:
            return None
        if self.form is Form.JSON:
            return nodes.json_value(node, self.name)
        if self.form is Form.WORDS:
            if isinstance(node, Sequence) and all(isinstance(item, Scalar) for item in node.items):
                return tuple(item.text for item in node.items if isinstance(item, Scalar))
            raise ValidationError(self.name, _kind(node), self.form)
        if not isinstance(node, Scalar):
            raise ValidationError(self.name, _kind(node), "one value")
        return self._scalar(node)

    def _scalar(self, node: Scalar) -> Any:
        if self.form is Form.TEXT:
            return node.text
        if self.form is Form.WORD:
            assert self.words is not None
            if node.text not in self.words.__members__:
                raise ValidationError(self.name, node.text, f"one of {', '.join(self.words.__members__)}")
            return self.words[node.text]
        read = {Form.INTEGER: nodes.integer, Form.NUMBER: nodes.number, Form.BOOLEAN: nodes.boolean}[self.form]
        value = read(node)
        if value is None:
            raise ValidationError(self.name, node.text, self.form)
        return value


def _kind(node: Node) -> str:
    return {Scalar: node.text if isinstance(node, Scalar) else "", Sequence: "a list"}.get(type(node), "a mapping")


def _of_provider(column: str) -> Callable[[Any], Any]:
    return lambda value: provider_values(UpdateProvider(**{column: value}))[column]


def _of_model(column: str) -> Callable[[Any], Any]:
    return lambda value: model_values(UpdateModel(**{column: value}))[column]


def _adapter(value: str) -> str:
    checked = str(provider_values(UpdateProvider(adapter=value))["adapter"])
    if checked not in ADAPTERS:
        raise ValidationError("adapter", value, f"one of {', '.join(sorted(ADAPTERS))}")
    return checked


def _timeout(path: str, column: str, about: str) -> Field:
    told = f"{about} Null: as the process is configured."
    return Field(path, column, Form.NUMBER, _of_model(column), told, _MODEL[column], nullable=True)


def _defaults(record: type[Any]) -> Mapping[str, Any]:
    return {item.name: item.default for item in fields(record)}


_PROVIDER: Final = _defaults(CreateProvider)
_MODEL: Final = _defaults(CreateModel)

PROVIDER_FIELDS: Final = (
    Field("displayName", "display_name", Form.TEXT, _of_provider("display_name"), "Its name for people."),
    Field(
        "adapter",
        "adapter",
        Form.TEXT,
        _adapter,
        'The wire protocol: "openai" also for every compatible server.',
        _PROVIDER["adapter"],
    ),
    Field(
        "baseUrl",
        "base_url",
        Form.TEXT,
        _of_provider("base_url"),
        "Null: the protocol's own provider's.",
        _PROVIDER["base_url"],
        nullable=True,
    ),
    Field(
        "limits.maxParallelRequests",
        "max_parallel_requests",
        Form.INTEGER,
        _of_provider("max_parallel_requests"),
        "Calls at once.",
        _PROVIDER["max_parallel_requests"],
    ),
    Field(
        "limits.requestsPerMinute",
        "requests_per_minute",
        Form.INTEGER,
        _of_provider("requests_per_minute"),
        "Starts of calls in any 60 seconds.",
        _PROVIDER["requests_per_minute"],
    ),
    Field(
        "limits.tokensPerMinute",
        "tokens_per_minute",
        Form.INTEGER,
        _of_provider("tokens_per_minute"),
        "Tokens in any 60 seconds. Null: not limited.",
        _PROVIDER["tokens_per_minute"],
        nullable=True,
    ),
    Field(
        "isEnabled",
        "is_enabled",
        Form.BOOLEAN,
        _of_provider("is_enabled"),
        "Whether it takes calls.",
        _PROVIDER["is_enabled"],
    ),
)
MODEL_FIELDS: Final = (
    Field("displayName", "display_name", Form.TEXT, _of_model("display_name"), "Its name for people."),
    Field(
        "description",
        "description",
        Form.TEXT,
        _of_model("description"),
        "What it is good for.",
        _MODEL["description"],
        nullable=True,
    ),
    Field(
        "modelType",
        "model_type",
        Form.WORD,
        _of_model("model_type"),
        "What it does.",
        _MODEL["model_type"],
        words=LlmModelType,
    ),
    Field(
        "status",
        "status",
        Form.WORD,
        _of_model("status"),
        "Only an active model takes calls.",
        LlmModelStatus.ACTIVE,
        words=LlmModelStatus,
    ),
    Field(
        "isDefault",
        "is_default",
        Form.BOOLEAN,
        bool,
        "Whether it is its provider's default; that ends another's being it.",
        _MODEL["is_default"],
    ),
    Field(
        "capabilities",
        "capabilities",
        Form.WORDS,
        lambda value: tuple(validation.capabilities(value)),
        'Such as "chat", "tools" and "vision".',
        _MODEL["capabilities"],
    ),
    Field(
        "contextWindow",
        "context_window",
        Form.INTEGER,
        _of_model("context_window"),
        "Tokens of input and output. Null: not known.",
        _MODEL["context_window"],
        nullable=True,
    ),
    Field(
        "maxOutputTokens",
        "max_output_tokens",
        Form.INTEGER,
        _of_model("max_output_tokens"),
        "Null: not known.",
        _MODEL["max_output_tokens"],
        nullable=True,
    ),
    Field(
        "parameterRules",
        "parameter_rules",
        Form.JSON,
        _of_model("parameter_rules"),
        "What parameters it takes: a list of {name, type, minimum, maximum, default, options, required}. "
        "Null: those of its protocol.",
        _MODEL["parameter_rules"],
        nullable=True,
    ),
    Field(
        "allowsUnknownParameters",
        "allows_unknown_parameters",
        Form.BOOLEAN,
        _of_model("allows_unknown_parameters"),
        "Whether parameters without a rule are passed on.",
        _MODEL["allows_unknown_parameters"],
    ),
    _timeout("connectTimeoutSeconds", "connect_timeout_seconds", "To be connected."),
    _timeout("readTimeoutSeconds", "read_timeout_seconds", "Between two bytes of an answer."),
    _timeout("totalTimeoutSeconds", "total_timeout_seconds", "For the whole call."),
)

LIST_PRICES: Final[Mapping[UsageUnit, str]] = {
    UsageUnit.INPUT_TOKENS: "cost_input_per_million",
    UsageUnit.OUTPUT_TOKENS: "cost_output_per_million",
}
"""Units whose price stands on the model itself: a trigger appends it to the dated ones."""


def price_key(unit: UsageUnit) -> str:
    """CACHE_READ_TOKENS is "cacheReadTokens"."""
    first, *rest = unit.lower().split("_")
    return first + "".join(part.title() for part in rest)


PRICE_KEYS: Final[Mapping[str, UsageUnit]] = {price_key(unit): unit for unit in UsageUnit}
