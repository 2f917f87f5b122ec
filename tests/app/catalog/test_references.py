"""References to models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.references import format_model_ref, parse_model_ref
from app.errors import ValidationError

provider_names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
model_ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)


@given(provider_names, model_ids)
def test_both_forms_lead_back_to_provider_and_model(name: str, model_id: str) -> None:
    assert parse_model_ref(format_model_ref(name, model_id)) == (name, model_id)
    assert parse_model_ref(f"#/Model/{name}/{model_id}") == (name, model_id)


def test_a_model_id_keeps_its_own_separators() -> None:
    assert parse_model_ref("openrouter:meta/llama-3:free") == ("openrouter", "meta/llama-3:free")
    assert parse_model_ref("#/Model/openrouter/meta/llama-3:free") == ("openrouter", "meta/llama-3:free")


@pytest.mark.parametrize("text", ["", "gpt-4o", ":", "openai:", ":gpt-4o", "#/Model/", "#/Model/openai", "#/Model//x"])
def test_what_is_no_reference_is_refused_by_field_name(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_model_ref(text, "ref")
    assert caught.value.field == "ref"
    assert caught.value.path == ("ref",)
