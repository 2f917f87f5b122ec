"""What the requests of one answer need besides their rows."""

from __future__ import annotations

from strawberry.dataloader import DataLoader

from app.api.context import RequestContext
from app.api.loaders import loader
from app.requests.records import LedgerEntry, RequestAttempt


def attempts_loader(context: RequestContext) -> DataLoader[str, list[RequestAttempt]]:
    return loader(context, "attempts", context.services.requests.attempts_of, list)


def ledger_loader(context: RequestContext) -> DataLoader[str, list[LedgerEntry]]:
    return loader(context, "ledger", context.services.requests.ledger_entries_of, list)
