"""Videos: requests of the operation VIDEO as their clients see them, and the files that came of them."""
