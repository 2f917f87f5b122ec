"""Provider keys from the environment."""

from __future__ import annotations

import pytest

from app.credentials.environment import EnvironmentCredentials, variable_for
from app.errors import AuthenticationFailed


@pytest.mark.parametrize(
    ("provider", "variable"),
    [("openai", "OPENAI_API_KEY"), ("my-vllm", "MY_VLLM_API_KEY"), ("a.b c", "A_B_C_API_KEY")],
)
def test_a_provider_has_its_variable(provider: str, variable: str) -> None:
    assert variable_for(provider) == variable
    assert EnvironmentCredentials({variable: " key \n"}).for_provider(provider).get_secret_value() == "key"


@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_a_missing_key_is_refused_by_the_name_of_its_variable(value: str | None) -> None:
    environment = {} if value is None else {"ACME_API_KEY": value}
    with pytest.raises(AuthenticationFailed, match="ACME_API_KEY"):
        EnvironmentCredentials(environment).for_provider("acme")


@pytest.mark.parametrize("value", ["clé", "two\nlines", "a\tb", "\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(AuthenticationFailed, match="ACME_API_KEY") as caught:
        EnvironmentCredentials({"ACME_API_KEY": f"secret{value}"}).for_provider("acme")
    assert "secret" not in caught.value.message


def test_a_changed_variable_is_read_anew() -> None:
    environment = {"ACME_API_KEY": "old"}
    credentials = EnvironmentCredentials(environment)
    credentials.for_provider("acme")
    environment["ACME_API_KEY"] = "new"
    assert credentials.for_provider("acme").get_secret_value() == "new"
    assert "new" not in repr(credentials.for_provider("acme"))
