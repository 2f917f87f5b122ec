"""System settings: one JSON value per key, for the whole installation."""

from __future__ import annotations

from app.db.rows import SystemSetting

__all__ = ["SystemSetting"]
