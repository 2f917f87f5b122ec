"""The wire protocols that the emulator speaks: for each a file of its paths and errors, and one for each operation."""
