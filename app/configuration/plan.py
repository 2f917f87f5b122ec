"""The difference between what a document says and what is there, decided without I/O or clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from app.catalog.records import LlmModel, LlmModelStatus, LlmProvider, UsageUnit
from app.catalog.references import format_model_ref
from app.catalog.snapshot import Snapshot
from app.configuration.document import price_path
from app.configuration.fields import LIST_PRICES, MODEL_FIELDS, PROVIDER_FIELDS, REQUIRED, Field
from app.configuration.pricing import decide_prices
from app.configuration.problems import Problems
from app.configuration.projection import project
from app.configuration.records import (
    NOT_REFERENCED,
    Action,
    Change,
    Difference,
    Document,
    Given,
    Kind,
    ModelEntry,
    Plan,
    Position,
    ProviderEntry,
    Referenced,
)
from app.configuration.values import canonical, printable
from app.errors import RequestRefused
from app.settings import rules

NOT_IN_FILE: Final = "not in the file"
KEPT_FOR_REQUESTS: Final = "not in the file; kept, since requests refer to it"


def decide(
    document: Document,
    snapshot: Snapshot,
    *,
    at: datetime,
    workspace_id: str,
    prune: bool = False,
    referenced: Referenced = NOT_REFERENCED,
) -> Plan:
    """Raises ConfigurationError where the file asks for what the catalog does not allow.

    `prune`: what a section of the file does not name goes; a section that is left out says nothing. `referenced` is
    read only then.
    """
    decider = _Decider(snapshot, at, workspace_id, prune, referenced)
    plan = decider.decide(document)
    decider.problems.raise_if_any()
    return plan


class _Decider:
    def __init__(
        self, snapshot: Snapshot, at: datetime, workspace_id: str, prune: bool, referenced: Referenced
    ) -> None:
        self.problems = Problems()
        self._snapshot = snapshot
        self._at = at
        self._workspace_id = workspace_id
        self._prune = prune
        self._referenced = referenced

    def decide(self, document: Document) -> Plan:
        changes: list[Change] = []
        wanted = document.providers or {}
        present = {row.name: row for row in self._snapshot.providers if row.workspace_id == self._workspace_id}
        prunes = self._prune and document.providers is not None
        for name in sorted({*wanted, *(present if prunes else ())}):
            if name in wanted:
                changes += self._provider(wanted[name], present.get(name))
            else:
                changes += self._prune_provider(present[name])
        if document.settings is not None:
            changes += self._settings(document.settings, project(self._snapshot, changes, self._workspace_id, self._at))
        return Plan(tuple(changes))

    def _provider(self, entry: ProviderEntry, row: LlmProvider | None) -> list[Change]:
        path = f"providers[{entry.name}]"
        values, differences = self._compare(PROVIDER_FIELDS, entry.values, row, path, entry.position)
        changes = []
        if row is None or values:
            action = Action.CREATE if row is None else Action.UPDATE
            changes.append(
                Change(
                    action,
                    Kind.PROVIDER,
                    entry.name,
                    row_id=None if row is None else row.id,
                    differences=tuple(differences),
                    values=values,
                )
            )
        return changes if entry.models is None else changes + self._models(entry, entry.models, row, path)

    def _models(
        self, provider: ProviderEntry, wanted: Mapping[str, ModelEntry], row: LlmProvider | None, path: str
    ) -> list[Change]:
        present = {} if row is None else {model.model_id: model for model in self._snapshot.models_of(row.id)}
        default = self._new_default(wanted, path)
        changes = []
        for model_id in sorted({*wanted, *present}):
            model, entry = present.get(model_id), wanted.get(model_id)
            change = None
            if entry is not None:
                change = self._model(provider.name, entry, model, f"{path}.models[{model_id}]")
            elif self._prune:
                assert model is not None
                change = self._prune_model(provider.name, model)
            if model is not None and default not in (None, model_id):
                change = _without_default(change, provider.name, model, f"{default} becomes the default")
            if change is not None:
                changes.append(change)
        return changes

    def _new_default(self, wanted: Mapping[str, ModelEntry], path: str) -> str | None:
        defaults = [
            (model_id, entry.values["is_default"].position)
            for model_id, entry in wanted.items()
            if "is_default" in entry.values and entry.values["is_default"].value
        ]
        for model_id, position in defaults[1:]:
            self.problems.add(
                position, f"{path}.models[{model_id}].isDefault must not be true: {defaults[0][0]!r} is the default"
            )
        return defaults[0][0] if defaults else None

    def _model(self, provider: str, entry: ModelEntry, row: LlmModel | None, path: str) -> Change | None:
        values, differences = self._compare(MODEL_FIELDS, entry.values, row, path, entry.position)
        self._check_default(entry, row, path)
        prices = []
        for unit, entries in sorted(entry.prices.items(), key=lambda item: list(UsageUnit).index(item[0])):
            column = LIST_PRICES.get(unit)
            decision = decide_prices(
                unit,
                entries,
                () if row is None else self._snapshot.prices_of(row.id, unit),
                listed=None if row is None or column is None else getattr(row, column),
                has_column=column is not None,
                at=self._at,
            )
            for position, text in decision.problems:
                self.problems.add(position, f"{path}.{price_path(unit)} {text}")
            prices += decision.prices
            differences += decision.differences
            if column is not None and decision.listed is not None:
                values[column] = decision.listed[0]
        if row is not None and not values and not prices:
            return None
        change = Change(
            Action.CREATE if row is None else Action.UPDATE,
            Kind.MODEL,
            format_model_ref(provider, entry.model_id),
            row_id=None if row is None else row.id,
            provider=provider,
            differences=tuple(differences),
            values=values,
            prices=tuple(prices),
        )
        if row is not None and values.get("status") is LlmModelStatus.DEPRECATED:
            return _without_default(change, provider, row, "it is deprecated")
        return change

    def _check_default(self, entry: ModelEntry, row: LlmModel | None, path: str) -> None:
        given = entry.values.get("is_default")
        if given is None or not given.value:
            return
        present = LlmModelStatus.ACTIVE if row is None else row.status
        status = entry.values["status"].value if "status" in entry.values else present
        becomes = row is None or not row.is_default
        if status is LlmModelStatus.DEPRECATED or (becomes and status is not LlmModelStatus.ACTIVE):
            self.problems.add(given.position, f"{path}.isDefault must be false: the model is {status.lower()}")

    def _compare(
        self,
        known: tuple[Field, ...],
        given: Mapping[str, Given],
        row: LlmProvider | LlmModel | None,
        path: str,
        position: Position,
    ) -> tuple[dict[str, Any], list[Difference]]:
        values: dict[str, Any] = {}
        differences = []
        for field in known:
            if field.column in given:
                new = given[field.column].value
                old = None if row is None else getattr(row, field.column)
                if row is None or (canonical(new) != canonical(old) and canonical(new) != canonical(field.stored(old))):
                    values[field.column] = new
                    differences.append(Difference(field.path, printable(old), printable(new)))
            elif row is None and field.default is REQUIRED:
                self.problems.add(position, f"{path}.{field.path} must be given: the catalog does not have it yet")
            elif row is None:
                values[field.column] = field.default
        return values, differences

    def _prune_provider(self, row: LlmProvider) -> list[Change]:
        models = self._snapshot.models_of(row.id)
        kept = row.id in self._referenced.provider_ids or any(
            model.id in self._referenced.model_ids for model in models
        )
        if not kept:
            # Its models go with it.
            deleted = [self._prune_model(row.name, model) for model in models]
            change = Change(Action.DELETE, Kind.PROVIDER, row.name, row_id=row.id, note=NOT_IN_FILE)
            return [change, *(model for model in deleted if model is not None)]
        changes: list[Change] = []
        if row.is_enabled:
            changes.append(
                Change(
                    Action.UPDATE,
                    Kind.PROVIDER,
                    row.name,
                    row_id=row.id,
                    differences=(Difference("isEnabled", True, False),),
                    note=KEPT_FOR_REQUESTS,
                    values={"is_enabled": False},
                )
            )
        pruned = [self._prune_model(row.name, model) for model in models]
        return changes + [change for change in pruned if change is not None]

    def _prune_model(self, provider: str, row: LlmModel) -> Change | None:
        ref = format_model_ref(provider, row.model_id)
        if row.id not in self._referenced.model_ids:
            return Change(Action.DELETE, Kind.MODEL, ref, row_id=row.id, provider=provider, note=NOT_IN_FILE)
        if row.status is LlmModelStatus.DEPRECATED:
            return None
        difference = Difference("status", printable(row.status), printable(LlmModelStatus.DEPRECATED))
        change = Change(
            Action.UPDATE,
            Kind.MODEL,
            ref,
            row_id=row.id,
            provider=provider,
            differences=(difference,),
            note=KEPT_FOR_REQUESTS,
            values={"status": LlmModelStatus.DEPRECATED},
        )
        return _without_default(change, provider, row, "it is deprecated")

    def _settings(self, wanted: Mapping[str, Given], after: Snapshot) -> list[Change]:
        changes = []
        for key in sorted({*wanted, *(setting.key for setting in self._snapshot.settings if self._prune)}):
            row = self._snapshot.setting(key)
            if key not in wanted:
                assert row is not None
                changes.append(Change(Action.DELETE, Kind.SETTING, key, row_id=row.id, note=NOT_IN_FILE))
                continue
            given = wanted[key]
            if row is not None and canonical(row.value) == canonical(given.value):
                continue
            self._check_setting(key, given, after)
            old = None if row is None else row.value
            changes.append(
                Change(
                    Action.CREATE if row is None else Action.UPDATE,
                    Kind.SETTING,
                    key,
                    row_id=None if row is None else row.id,
                    differences=(Difference("value", old, given.value),),
                    values={"value": given.value},
                )
            )
        return changes

    def _check_setting(self, key: str, given: Given, after: Snapshot) -> None:
        if not key.startswith(rules.INFRA_MODEL_PREFIX):
            return
        try:
            name = rules.parse_infra_model(given.value)
            rules.resolve_infra_model(after, key, name, self._workspace_id, "value")
        except RequestRefused as error:
            self.problems.refuse(given.position, f"settings.{key}", error)


def _without_default(change: Change | None, provider: str, row: LlmModel, note: str) -> Change | None:
    """The change, by which the model also stops being the default if it is that and stays."""
    if not row.is_default or (change is not None and (change.action is Action.DELETE or "is_default" in change.values)):
        return change
    if change is None:
        ref = format_model_ref(provider, row.model_id)
        change = Change(Action.UPDATE, Kind.MODEL, ref, row_id=row.id, provider=provider)
    difference = Difference("isDefault", True, False, note)
    return replace(
        change,
        differences=(*change.differences, difference),
        values={**change.values, "is_default": False},
    )
