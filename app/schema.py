"""The GraphQL schema, merged of the features' parts.

`python -m app.schema` prints it; with `--write` it renews schema.graphql, with `--check` it compares.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import strawberry
from strawberry.schema.config import StrawberryConfig
from strawberry.tools import merge_types

from app.access.graphql import AccessMutation, AccessQuery
from app.api.errors import Error
from app.api.scalars import SCALARS
from app.catalog.graphql import CatalogMutation, CatalogQuery, CatalogSubscription
from app.prices.graphql import PricesMutation, PricesQuery
from app.requests.graphql import RequestsMutation, RequestsQuery, RequestsSubscription
from app.requests.output import OutputSubscription
from app.settings.graphql import SettingsMutation, SettingsQuery
from app.usage.graphql import UsageQuery

SDL: Final = Path(__file__).with_name("schema.graphql")

RECORD_TYPES: Final = frozenset({"LlmProvider", "LlmModel", "SystemSetting"})
"""The object types whose sources are the snapshot's own records."""

schema: Final = strawberry.Schema(
    query=merge_types("Query", (CatalogQuery, SettingsQuery, RequestsQuery, PricesQuery, UsageQuery, AccessQuery)),
    mutation=merge_types(
        "Mutation", (CatalogMutation, SettingsMutation, RequestsMutation, PricesMutation, AccessMutation)
    ),
    subscription=merge_types("Subscription", (RequestsSubscription, OutputSubscription, CatalogSubscription)),
    types=[Error],
    config=StrawberryConfig(scalar_map=SCALARS),
)


def print_sdl() -> str:
    return schema.as_str().strip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.schema", description="Prints the GraphQL schema.")
    parser.add_argument("--write", action="store_true", help=f"write it to {SDL.name} instead")
    parser.add_argument("--check", action="store_true", help=f"exit with 1 where {SDL.name} is not what it is")
    options = parser.parse_args()
    printed = print_sdl()
    if options.write:
        SDL.write_text(printed, encoding="utf-8")
    elif options.check:
        if not SDL.exists() or SDL.read_text(encoding="utf-8") != printed:
            sys.exit(f"{SDL.name} is stale: run 'python -m app.schema --write'")
    else:
        sys.stdout.write(printed)


if __name__ == "__main__":
    main()
