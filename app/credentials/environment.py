"""Provider keys from the environment: OPENAI_API_KEY for the provider named "openai", and so on."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from pydantic import SecretStr

from app.errors import AuthenticationFailed


def variable_for(provider_name: str) -> str:
    """ "openai" -> "OPENAI_API_KEY", "my-vllm" -> "MY_VLLM_API_KEY"."""
    return re.sub(r"[^A-Z0-9]+", "_", provider_name.upper()) + "_API_KEY"


class EnvironmentCredentials:
    """Reads the variable at each call, so that nothing keeps a copy."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment

    def for_provider(self, provider_name: str) -> SecretStr:
        """Raises AuthenticationFailed, naming the variable, where it is not set."""
        variable = variable_for(provider_name)
        value = self._environment.get(variable, "").strip()
        if not value.isascii() or not value.isprintable():
            raise AuthenticationFailed(
                f"the credential for provider {provider_name!r} cannot be sent in a header: {variable} has characters "
                "other than printable ASCII"
            )
        if not value:
            raise AuthenticationFailed(
                f"no credential for provider {provider_name!r}: set {variable} in the worker's environment"
            )
        return SecretStr(value)
