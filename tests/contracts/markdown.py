"""The code blocks of a guide, each with what the comment before it says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
_BLOCK = re.compile(
    r"^(?:<!-- (?P<name>\w+): (?P<note>.*?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """`notes` are those of comments such as `<!-- paste: server -->`, by their name."""

    language: str
    text: str
    line: int
    notes: dict[str, str]


def blocks_of(guide: str, language: str) -> list[Block]:
    text = (REPOSITORY / guide).read_text()
    return [
        Block(
            match["language"],
            match["text"],
            text.count("\n", 0, match.start("text")) + 1,
            {match["name"]: match["note"]} if match["name"] else {},
        )
        for match in _BLOCK.finditer(text)
        if match["language"] == language
    ]
