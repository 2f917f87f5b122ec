"""What a file says, and what is wrong with it: file, line, path, value and bound."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from app.catalog.records import LlmModelStatus, LlmModelType, UsageUnit
from app.errors import ConfigurationError
from tests.app.configuration.conftest import Loads

FULL = """
providers:
  - name: acme
    displayName: Acme
    adapter: openai
    baseUrl: https://acme.example/v1/
    limits:
      maxParallelRequests: 4
      requestsPerMinute: 600
      tokensPerMinute: null
    isEnabled: false
    models:
      - modelId: 4.10
        displayName: no
        description: |
          Two
          lines.
        modelType: CODE
        status: INACTIVE
        isDefault: true
        capabilities: [chat, tools]
        contextWindow: 128000
        maxOutputTokens: 16384
        parameterRules: [{name: temperature, type: number, minimum: 0, maximum: 1.5}]
        allowsUnknownParameters: true
        connectTimeoutSeconds: 2.5
        prices:
          inputTokens: 0.15
          outputTokens: "0.60"
          cacheReadTokens: null
          cacheWriteTokens:
            - price: 0.1875
            - {price: 0.0000000001, effectiveAt: 2026-12-01}
            - {price: 12345678.0123456789, effectiveAt: 2027-01-01T00:00:00+02:00}
settings:
  plain: text
  nested: {a: [1, 0.5, true, null, "1", no, 012, 0x10, 2026-01-01]}
"""


def values(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item.value for key, item in given.items()}


def test_every_field_is_read(read: Loads) -> None:
    document = read(FULL)
    assert document.providers is not None
    provider = document.providers["acme"]
    assert values(provider.values) == {
        "display_name": "Acme",
        "adapter": "openai",
        "base_url": "https://acme.example/v1",
        "max_parallel_requests": 4,
        "requests_per_minute": 600,
        "tokens_per_minute": None,
        "is_enabled": False,
    }
    assert provider.models is not None
    model = provider.models["4.10"]
    assert values(model.values) == {
        "display_name": "no",
        "description": "Two\nlines.",
        "model_type": LlmModelType.CODE,
        "status": LlmModelStatus.INACTIVE,
        "is_default": True,
        "capabilities": ("chat", "tools"),
        "context_window": 128000,
        "max_output_tokens": 16384,
        "parameter_rules": [{"name": "temperature", "type": "number", "minimum": 0, "maximum": 1.5}],
        "allows_unknown_parameters": True,
        "connect_timeout_seconds": 2.5,
    }
    assert document.settings is not None
    assert values(document.settings) == {
        "plain": "text",
        "nested": {"a": [1, 0.5, True, None, "1", "no", 12, "0x10", "2026-01-01"]},
    }


def test_prices_come_as_the_decimals_that_are_written(read: Loads) -> None:
    document = read(FULL)
    assert document.providers is not None
    models = document.providers["acme"].models
    assert models is not None
    prices = {unit: [entry[:2] for entry in entries] for unit, entries in models["4.10"].prices.items()}
    assert prices == {
        UsageUnit.INPUT_TOKENS: [(Decimal("0.15"), None)],
        UsageUnit.OUTPUT_TOKENS: [(Decimal("0.60"), None)],
        UsageUnit.CACHE_READ_TOKENS: [(None, None)],
        UsageUnit.CACHE_WRITE_TOKENS: [
            (Decimal("0.1875"), None),
            (Decimal("0.0000000001"), datetime(2026, 12, 1, tzinfo=UTC)),
            (Decimal("12345678.0123456789"), datetime(2026, 12, 31, 22, tzinfo=UTC)),
        ],
    }


def model(line: str) -> str:
    return f"providers:\n  - name: acme\n    models:\n      - modelId: m\n        {line}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("provider: []", "tollgate.yaml:1: the file has an unknown key 'provider'; did you mean 'providers'?"),
        (
            "providers:\n- name: acme\n  display_name: Acme",
            ":3: providers[acme] has an unknown key 'display_name'; did you mean 'displayName'?",
        ),
        (
            "providers:\n- name: acme\n  limits:\n    requestPerMinute: 1",
            ":4: providers[acme].limits has an unknown key 'requestPerMinute'; did you mean 'requestsPerMinute'?",
        ),
        (
            "providers:\n- name: acme\n  limits:\n    requestsPerMinute: 0",
            ":4: providers[acme].limits.requestsPerMinute must be an integer from 1 to 2147483647, not 0",
        ),
        (
            "providers:\n- name: acme\n  limits:\n    requestsPerMinute: many",
            ":4: providers[acme].limits.requestsPerMinute must be an integer, not 'many'",
        ),
        ("providers:\n- displayName: Acme", ":2: providers[0] must have a name"),
        ("providers:\n- name: A B", ":2: providers[0].name must be 1 to 64 of a-z"),
        (
            "providers:\n- name: acme\n- name: acme",
            ":3: providers[1].name 'acme' is given twice, first in line 2",
        ),
        ("providers:\n- name: acme\n  name: b", ":3: providers[0].name is given twice, first in line 2"),
        ("providers: {acme: {}}", ":1: providers must be a list, each item with its name"),
        (
            "providers:\n- name: acme\n  adapter: smtp",
            ":3: providers[acme].adapter must be one of anthropic, ",
        ),
        (
            "providers:\n- name: acme\n  baseUrl: https://user:hunter2@acme.example",
            ":3: providers[acme].baseUrl must be an http or https URL",
        ),
        (
            "providers:\n- name: acme\n  displayName:",
            ":3: providers[acme].displayName must be given, or left out where it is to stay as it is, not None",
        ),
        (model("status: RETIRED"), ":5: providers[acme].models[m].status must be one of ACTIVE, INACTIVE, DEPRECATED"),
        (model("isDefault: 1"), ":5: providers[acme].models[m].isDefault must be true or false, not '1'"),
        (model("capabilities: chat"), ":5: providers[acme].models[m].capabilities must be a list of words"),
        (model("totalTimeoutSeconds: 0"), ":5: providers[acme].models[m].totalTimeoutSeconds must be a number of"),
        (
            model("parameterRules: [{name: n, type: number, minimum: 2, maximum: 1}]"),
            ":5: providers[acme].models[m].parameterRules[0].maximum must be at least the minimum, 2, not 1",
        ),
        (model("parameterRules: {}"), ":5: providers[acme].models[m].parameterRules must be a list of rules"),
        (
            model("prices: {inputTokens: -1}"),
            ":5: providers[acme].models[m].prices.inputTokens must be a decimal of at least 0, below 10000000000, with "
            "at most 10 decimals, not '-1'",
        ),
        (model("prices: {inputTokens: 0.00000000001}"), "at most 10 decimals, not '0.00000000001'"),
        (model("prices: {input: 1}"), "prices has an unknown key 'input'; did you mean 'inputTokens'?"),
        (model("prices: {images: []}"), "prices.images must be a price, or a list of prices with their effectiveAt"),
        (model("prices: {images: [{effectiveAt: 2026-01-01}]}"), "prices.images[0] must have a price"),
        (
            model("prices: {images: [{price: 1, effectiveAt: 2026-01-01T00:00:00}]}"),
            "prices.images[0].effectiveAt must be a time with its offset (2026-12-01T00:00:00Z) or a date",
        ),
        (
            model("prices: {images: [{price: 1, effectiveAt: 2026-01-01}, {price: 2, effectiveAt: 2026-01-01}]}"),
            "prices.images[1] is for the same time as the price in line 5",
        ),
        ("settings:\n  Upper: 1", ":2: settings.Upper must be 1 to 100 of a-z"),
        ("settings:\n  a: 0.1234567890123456789", ":2: settings.a must be a number that JSON's readers hold exactly"),
        ("settings:\n  a: 18446744073709551616", ":2: settings.a must be JSON, with integers of at most 64 bits"),
        ("settings:\n  a: .inf", ":2: settings.a must be a number that JSON's readers hold exactly"),
        ('settings:\n  a: "x\\0"', ":2: settings.a must be text without the character U+0000"),
        ("settings: []", ":1: settings must be a mapping of keys to values"),
        ("settings:\n  a: !!python/object:os.system x", ":2: the tag 'tag:yaml.org,2002:python/object:os.system'"),
        ("providers: [", ": this is no YAML: while parsing a flow node"),
        ("a: b\n---\nc: d", ":2: this is no YAML: expected a single document"),
        ("providers\n", ":1: the file must be a mapping with include, providers and settings"),
        ("settings: &a\n  b: *a", "nested at most 300 deep"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(read: Loads, text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read(text)
    assert expected in refused.value.message
    assert "tollgate.yaml:" in refused.value.message
    assert "hunter2" not in refused.value.message


def test_everything_wrong_is_said_at_once_in_the_order_of_lines(read: Loads) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read("settings:\n  A: 1\nproviders:\n- name: acme\n  isEnabled: perhaps\n  limits: 5\n")
    assert [line.split(": ")[0].rpartition(":")[2] for line in refused.value.message.splitlines()] == ["2", "5", "6"]


def test_an_unset_variable_is_named_with_file_and_line(read: Loads) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read("providers:\n- name: acme\n  baseUrl: ${ACME_URL}\n")
    assert refused.value.message.endswith(
        "tollgate.yaml:3: providers[0].baseUrl: the environment variable ACME_URL is not set; "
        "${ACME_URL:-...} would give it a default"
    )


def test_variables_stand_for_values_of_any_type(read: Loads) -> None:
    text = (
        "providers:\n- name: ${NAME}\n  isEnabled: ${ON}\n  limits: {requestsPerMinute: '${RPM}'}\n"
        "  models:\n  - {modelId: m, prices: {inputTokens: '${PRICE:-2.50}'}}\n"
    )
    document = read(text, {"NAME": "acme", "ON": "false", "RPM": "90"})
    assert document.providers is not None
    provider = document.providers["acme"]
    assert values(provider.values) == {"is_enabled": False, "requests_per_minute": 90}
    assert provider.models is not None
    assert provider.models["m"].prices[UsageUnit.INPUT_TOKENS][0].price == Decimal("2.50")


def test_a_value_from_the_environment_is_not_repeated_in_an_error(read: Loads) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read("providers:\n- name: acme\n  isEnabled: ${SECRET}\n", {"SECRET": "hunter2"})
    assert "isEnabled must be true or false, not what '${SECRET}' stands for" in refused.value.message
    assert "hunter2" not in refused.value.message


def test_what_a_variable_holds_is_never_read_as_yaml(read: Loads) -> None:
    document = read("settings: {a: '${TEXT}'}", {"TEXT": "x}\nproviders: []\n"})
    assert document.providers is None
    assert document.settings is not None
    assert document.settings["a"].value == "x}\nproviders: []\n"


def test_an_empty_file_and_empty_sections_say_nothing(read: Loads) -> None:
    for text in ("", "# nothing\n", "providers:\nsettings:\n"):
        document = read(text)
        assert (document.providers, document.settings) == (None, None)


def test_many_aliases_cannot_fill_the_memory(read: Loads) -> None:
    levels = "".join(f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(ConfigurationError, match="at most 300000 values"):
        read("settings:\n  l0: &l0 [1]\n" + levels)


@pytest.mark.parametrize("deep", ["[" * 400 + "]" * 400, "[" * 1_000_000, "{a: " * 300_000, "- " * 300_000 + "x"])
def test_a_deep_file_cannot_overflow_the_stack(read: Loads, deep: str) -> None:
    with pytest.raises(ConfigurationError, match="nested at most 300 deep"):
        read(f"settings:\n  a:\n    {deep}\n")
