"""`python -m app.providers.emulator`: the emulator alone, without the rest of the command line."""

import typer

from app.providers.emulator.command import emulate

typer.run(emulate)
