"""Anthropic's messages protocol, both ways."""

from app.providers.anthropic.adapter import AnthropicAdapter
from app.providers.anthropic.dialect import AnthropicMessagesDialect

__all__ = ["AnthropicAdapter", "AnthropicMessagesDialect"]
