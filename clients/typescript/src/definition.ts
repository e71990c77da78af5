/**
 * Workflow definitions as people write them in JSON or YAML.
 *
 * The written form has the fields of `WorkflowDefinition` by their names (`retry_policy` or `retryPolicy`), enums by
 * their short names (`GRAPH`), spans of time as text (`90s`, `1h30m`) or seconds, and payloads as they are. The messages
 * themselves say what fields there are, so that a new field needs no change here.
 */

import {
  type DescEnum,
  type DescField,
  type DescMessage,
  fromJson,
  isMessage,
  type JsonObject,
  type JsonValue,
  ScalarType,
  toJson,
} from "@bufbuild/protobuf";
import { DurationSchema, StructSchema, ValueSchema } from "@bufbuild/protobuf/wkt";

import { type Span, toDuration } from "./durations.js";
import { DefinitionError, PayloadError, type Violation } from "./errors.js";
import { type WorkflowDefinition, WorkflowDefinitionSchema } from "./gen/flowkeep/v1/workflow_pb.js";
import { kind, member, toStruct, toValue } from "./payload.js";

/** A definition as a message, or in the written form that `definition` reads. */
export type Definition = WorkflowDefinition | object;

/**
 * Returns a definition as a message; null means that a field is not set.
 *
 * Throws DefinitionError with every unknown field and wrong type at once. Rules about values are left to the service.
 */
export function definition(document: Definition): WorkflowDefinition {
  if (isMessage(document, WorkflowDefinitionSchema)) {
    return document;
  }
  const reader = new Reader();
  const json = reader.message(WorkflowDefinitionSchema, document, "");
  if (reader.violations.length > 0) {
    throw new DefinitionError(reader.violations);
  }
  return fromJson(WorkflowDefinitionSchema, json);
}

/** Returns one or several definitions as messages. Throws DefinitionError with what is wrong with all of them. */
export function definitions(documents: Definition | readonly Definition[]): WorkflowDefinition[] {
  if (!Array.isArray(documents)) {
    return [definition(documents)];
  }
  const violations: Violation[] = [];
  const messages = documents.flatMap((document: Definition, index) => {
    try {
      return [definition(document)];
    } catch (error) {
      if (!(error instanceof DefinitionError)) {
        throw error;
      }
      const place = `definitions[${index}]`;
      violations.push(
        ...error.violations.map((each) => ({ ...each, field: each.field ? `${place}.${each.field}` : place })),
      );
      return [];
    }
  });
  if (violations.length > 0) {
    throw new DefinitionError(violations);
  }
  return messages;
}

/** Makes of a written form the JSON form that protobuf defines, and notes what is wrong. */
class Reader {
  readonly violations: Violation[] = [];

  message(schema: DescMessage, document: unknown, path: string): JsonObject {
    if (document === null || typeof document !== "object" || Array.isArray(document)) {
      this.#wrong(path, `must be an object with fields, not ${kind(document)}`);
      return {};
    }
    const found: JsonObject = {};
    for (const [name, value] of Object.entries(document)) {
      const field = schema.fields.find((each) => each.name === name || each.jsonName === name);
      if (field === undefined) {
        const names = schema.fields.map((each) => each.name).join(", ");
        this.#wrong(member(path, name), `is unknown. There are ${names}`);
      } else if (value !== undefined && (value !== null || field.message?.typeName === ValueSchema.typeName)) {
        found[field.jsonName] = this.#field(field, value, member(path, name));
      }
    }
    return found;
  }

  #field(field: DescField, value: unknown, path: string): JsonValue {
    switch (field.fieldKind) {
      case "list":
        return this.#list(field, value, path);
      case "map":
        return this.#map(field, value, path);
      default:
        return this.#one(field, value, path);
    }
  }

  #list(field: DescField, value: unknown, path: string): JsonValue {
    if (!Array.isArray(value)) {
      return this.#wrong(path, `must be a list, not ${kind(value)}`);
    }
    return value.map((item, index) => this.#one(field, item, `${path}[${index}]`));
  }

  #map(field: DescField, value: unknown, path: string): JsonValue {
    if (value === null || typeof value !== "object" || Array.isArray(value)) {
      return this.#wrong(path, `must be an object, not ${kind(value)}`);
    }
    const entries = Object.entries(value).map(([key, each]) => [key, this.#one(field, each, member(path, key))]);
    return Object.fromEntries(entries) as JsonObject;
  }

  #one(field: DescField, value: unknown, path: string): JsonValue {
    if (field.enum !== undefined) {
      return this.#enum(field.enum, value, path);
    }
    if (field.message !== undefined) {
      return this.#submessage(field.message, value, path);
    }
    return this.#scalar(field.scalar, value, path);
  }

  #submessage(schema: DescMessage, value: unknown, path: string): JsonValue {
    try {
      switch (schema.typeName) {
        case DurationSchema.typeName:
          return toJson(DurationSchema, toDuration(value as Span));
        case StructSchema.typeName:
          return toStruct(value as object, path);
        case ValueSchema.typeName:
          return toValue(value, path);
        default:
          return this.message(schema, value, path);
      }
    } catch (error) {
      if (error instanceof PayloadError) {
        return this.#wrong(error.path, error.description);
      }
      if (error instanceof RangeError) {
        return this.#wrong(path, error.message);
      }
      throw error;
    }
  }

  #enum(schema: DescEnum, value: unknown, path: string): JsonValue {
    const wanted = typeof value === "string" ? value.trim().toUpperCase().replaceAll(/[- ]/g, "_") : "";
    const found = schema.values.find((each) => wanted === each.name || wanted === shortName(schema, each.name));
    if (found === undefined || found.number === 0) {
      const names = schema.values.slice(1).map((each) => shortName(schema, each.name));
      return this.#wrong(path, `must be one of ${names.join(", ")}`);
    }
    return found.name;
  }

  #scalar(type: ScalarType | undefined, value: unknown, path: string): JsonValue {
    switch (type) {
      case ScalarType.STRING:
        return typeof value === "string" ? value : this.#wrong(path, `must be a string, not ${kind(value)}`);
      case ScalarType.BOOL:
        return typeof value === "boolean" ? value : this.#wrong(path, `must be true or false, not ${kind(value)}`);
      case ScalarType.DOUBLE:
        return Number.isFinite(value) ? (value as number) : this.#wrong(path, `must be a number, not ${kind(value)}`);
      default: {
        const isWhole = Number.isInteger(value) && Math.abs(value as number) < 2 ** 31;
        return isWhole ? (value as number) : this.#wrong(path, "must be a whole number below 2^31");
      }
    }
  }

  #wrong(field: string, description: string): null {
    this.violations.push({ field, description });
    return null;
  }
}

/** Returns the name of an enum's value without the enum's own: `GRAPH` for ORDERING_GRAPH. */
function shortName(schema: DescEnum, name: string): string {
  const prefix = schema.values[0]?.name.replace(/UNSPECIFIED$/, "") ?? "";
  return name.startsWith(prefix) ? name.slice(prefix.length) : name;
}
