"""What was used over a time, and what it came to: sums over the ledger."""
