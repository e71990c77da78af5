/** JSON values as payloads carry them. */

import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { toJson } from "@bufbuild/protobuf";
import { type Value, ValueSchema } from "@bufbuild/protobuf/wkt";

import { PayloadError } from "./errors.js";

const MAX_WHOLE_NUMBER = 2 ** 53;
// A whole double from here on is no integer of 64 bits that lost its digits, but one such as 6.02e23.
const LEAST_FLOAT = 2 ** 64;
// Protobuf refuses messages nested more than 100 deep, and a level of JSON takes three. It also ends a value that
// contains itself. The service's own limit is lower, and is checked by the service.
const MAX_DEPTH = 32;
const BEYOND = "must not be beyond 2^53, or digits would be lost: send it as a string";

/** A JSON object: a plain object, or any other of which JSON.stringify would make one. */
export type Input = object;

/**
 * Returns a JSON object as payloads carry it. What has `toJSON`, such as a Date, counts as what that gives, and members
 * that are undefined are left out, as in JSON.stringify.
 *
 * Throws PayloadError, with the path below `path`, for what JSON or a double cannot hold: NaN, infinity, whole numbers
 * beyond 2^53 (send them as strings), functions, maps, sets, bytes.
 */
export function toStruct(input: Input, path = ""): JsonObject {
  const value = toValue(input, path);
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new PayloadError(path, `must be an object, not ${kind(input)}`);
  }
  return value;
}

/** Returns a JSON value as payloads carry it. Throws PayloadError as `toStruct` does. */
export function toValue(value: unknown, path = ""): JsonValue {
  return checked(value, path, 1);
}

/** Returns what a `Value` holds; null of one that is not set. */
export function fromValue(value: Value | undefined): JsonValue {
  return value?.kind.case === undefined ? null : toJson(ValueSchema, value);
}

/** Returns the path of a key below a path, in the form that the service uses: `params.url`, `labels["a b"]`. */
export function member(path: string, key: string): string {
  if (!/^[\p{L}_][\p{L}\p{N}_]*$/u.test(key)) {
    return `${path}["${key}"]`;
  }
  return path ? `${path}.${key}` : key;
}

/** Returns what a value is, in words that do not show it. */
export function kind(value: unknown): string {
  if (value === null || value === undefined) {
    return String(value);
  }
  return typeof value === "object" ? `a ${value.constructor?.name ?? "object"}` : `a ${typeof value}`;
}

function checked(value: unknown, path: string, depth: number): JsonValue {
  switch (typeof value) {
    case "string":
      return checkedText(value, path);
    case "boolean":
      return value;
    case "number":
      return checkedNumber(value, path);
    case "bigint":
      return checkedWhole(value, path);
    case "object":
      return value === null ? null : checkedObject(value, path, depth);
    default:
      throw new PayloadError(path, `must be a JSON value, not ${kind(value)}`);
  }
}

function checkedObject(value: object, path: string, depth: number): JsonValue {
  if (depth > MAX_DEPTH) {
    throw new PayloadError(path, `must not be nested more than ${MAX_DEPTH} deep, or contain itself`);
  }
  if ("toJSON" in value && typeof value.toJSON === "function") {
    return checked(value.toJSON(), path, depth + 1);
  }
  if (Array.isArray(value)) {
    return value.map((item, index) => checked(item, `${path}[${index}]`, depth + 1));
  }
  if (value instanceof Map || value instanceof Set || value instanceof ArrayBuffer || ArrayBuffer.isView(value)) {
    throw new PayloadError(path, `must be a JSON value, not ${kind(value)}`);
  }
  const found: JsonObject = {};
  for (const [key, each] of Object.entries(value)) {
    if (each !== undefined) {
      const place = member(path, key);
      // Not by assignment: `__proto__` is a key like others.
      Object.defineProperty(found, checkedText(key, place), {
        value: checked(each, place, depth + 1),
        enumerable: true,
        configurable: true,
        writable: true,
      });
    }
  }
  return found;
}

function checkedWhole(number: bigint, path: string): number {
  if (number > MAX_WHOLE_NUMBER || number < -MAX_WHOLE_NUMBER) {
    throw new PayloadError(path, BEYOND);
  }
  return Number(number);
}

function checkedNumber(number: number, path: string): number {
  if (Math.abs(number) <= MAX_WHOLE_NUMBER) {
    return number + 0; // -0 is 0, as everywhere in JSON that Postgres keeps
  }
  if (!Number.isFinite(number)) {
    throw new PayloadError(path, `must be a finite number, not ${number}`);
  }
  // A double this large is always whole, so that the service cannot tell it from an integer that lost digits.
  if (Math.abs(number) < LEAST_FLOAT) {
    throw new PayloadError(path, BEYOND);
  }
  return number;
}

function checkedText(text: string, path: string): string {
  if (text.includes("\0")) {
    throw new PayloadError(path, "must not contain the NUL character");
  }
  if (!text.isWellFormed()) {
    throw new PayloadError(path, "must be valid Unicode, without lone surrogates");
  }
  return text;
}
