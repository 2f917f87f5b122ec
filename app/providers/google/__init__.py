"""Google's protocol, as its Gemini API speaks it."""

from app.providers.google.adapter import GoogleAdapter

__all__ = ["GoogleAdapter"]
