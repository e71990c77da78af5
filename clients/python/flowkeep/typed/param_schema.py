"""The JSON Schema of params, as pydantic makes it of types, and closed where pydantic leaves it open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind
from pydantic_core import core_schema

_FORMS_OF_ITS_OWN = frozenset({"before", "wrap"})


class ParamSchema(GenerateJsonSchema):
    """Refuses unknown fields in models, dataclasses and typed dicts too, unless these say what becomes of them."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Return the schema of a model."""
        made, model = super().model_schema(schema), schema["cls"]
        if issubclass(model, pydantic.BaseModel) and _takes_other_forms(model):
            return _without_aliases(made, model)
        return _closed(made, schema)

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """Return the schema of a dataclass, of the standard library or of pydantic."""
        return _closed(super().dataclass_schema(schema), schema)

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
        """Return the schema of a typed dict."""
        return _closed(super().typed_dict_schema(schema), schema)

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """Return the schema of a time. One that must have no zone is none of RFC 3339, and is left to its type."""
        if schema.get("tz_constraint") == "naive":
            return {"type": "string", "description": 'Without a time zone, such as "2030-01-31T09:00:00".'}
        return super().datetime_schema(schema)

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        """Refuse a default that JSON cannot hold, which the schema would keep from people."""
        if kind == "non-serializable-default":
            raise ValueError("a default in it cannot be written as JSON")


def _closed(made: JsonSchemaValue, schema: Mapping[str, Any]) -> JsonSchemaValue:
    """Refuse unknown fields unless the type, or the one that it stands in, says what becomes of them."""
    if made.get("type") == "object" and not schema.get("config", {}).get("extra_fields_behavior"):
        made.setdefault("additionalProperties", False)
    return made


def _takes_other_forms(model: type[pydantic.BaseModel]) -> bool:
    """Return whether the model takes fields by names that its schema does not show."""
    config = model.model_config
    if config.get("populate_by_name") or config.get("validate_by_name"):
        return True
    if any(v.info.mode in _FORMS_OF_ITS_OWN for v in model.__pydantic_decorators__.model_validators.values()):
        return True
    return any(_is_choice(field.validation_alias) for field in model.model_fields.values())


def _without_aliases(made: JsonSchemaValue, model: type[pydantic.BaseModel]) -> JsonSchemaValue:
    """Require no field by one of its several names; the model itself says so if none of them is given."""
    aliased = {field.alias for field in model.model_fields.values() if field.alias}
    made["required"] = [name for name in made.get("required", ()) if name in model.model_fields.keys() - aliased]
    return made


def _is_choice(alias: Any) -> bool:
    return alias is not None and not isinstance(alias, str)
