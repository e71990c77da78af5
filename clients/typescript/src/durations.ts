/** Spans of time as people write them (`90s`, `1h30m`, `7d`, `PT5M`), and protobuf's `Duration`. */

import { create } from "@bufbuild/protobuf";
import { type Duration, DurationSchema } from "@bufbuild/protobuf/wkt";

/** A span of time: a number of seconds, or text such as `90s`, `1h30m`, `7d` or `PT5M`. */
export type Span = number | string;

const NUMBER = String.raw`(\d{1,12}(?:\.\d{1,9})?)`;
const SHORT = new RegExp(
  `^(?:${NUMBER}w)?(?:${NUMBER}d)?(?:${NUMBER}h)?(?:${NUMBER}m(?!s))?(?:${NUMBER}s)?(?:${NUMBER}ms)?$`,
);
const ISO = new RegExp(
  `^P(?:${NUMBER}W)?(?:${NUMBER}D)?(?:T(?=\\d)(?:${NUMBER}H)?(?:${NUMBER}M)?(?:${NUMBER}S)?)?$`,
);
const BARE = new RegExp(`^${NUMBER}$`);
const SECOND = 1_000_000_000n;
const UNITS = [604_800n * SECOND, 86_400n * SECOND, 3_600n * SECOND, 60n * SECOND, SECOND, SECOND / 1000n];
const MAX_NANOS = 315_576_000_000n * SECOND; // what protobuf's Duration can hold

/**
 * Returns a span as a `Duration`, exact to the nanosecond.
 *
 * Throws RangeError, which says what would be right, for a negative span, one longer than 10,000 years, and text that is
 * no span. Text of digits only is refused too: it could be seconds or milliseconds.
 */
export function toDuration(span: Span): Duration {
  const nanos = typeof span === "number" ? nanosOfSeconds(span) : nanosOfText(span);
  if (nanos < 0n || nanos > MAX_NANOS) {
    throw new RangeError("must be between 0 and 10,000 years");
  }
  return create(DurationSchema, { seconds: nanos / SECOND, nanos: Number(nanos % SECOND) });
}

/** Returns a span in seconds. Throws as `toDuration` does. */
export function toSeconds(span: Span): number {
  const duration = toDuration(span);
  return Number(duration.seconds) + duration.nanos / 1e9;
}

function nanosOfSeconds(seconds: number): bigint {
  if (!Number.isFinite(seconds)) {
    throw new RangeError(`must be a finite number of seconds, not ${seconds}`);
  }
  if (Math.abs(seconds) > 1e15) {
    return MAX_NANOS + 1n;
  }
  const text = Math.abs(seconds).toFixed(9);
  return (seconds < 0 ? -1n : 1n) * scaled(text, SECOND);
}

function nanosOfText(given: unknown): bigint {
  if (typeof given !== "string") {
    throw new RangeError("must be a number of seconds or text such as '90s' or '1h30m'");
  }
  const text = given.trim();
  if (BARE.test(text)) {
    throw new RangeError(`lacks a unit: write '${text}s', or the number without quotes for seconds`);
  }
  const counts = (SHORT.exec(text) ?? ISO.exec(text))?.slice(1) ?? [];
  if (!counts.some((count) => count !== undefined)) {
    const shown = text.length <= 60 ? text : `${text.slice(0, 57)}...`;
    throw new RangeError(`must be a span of time such as '90s', '5m', '1h30m', '7d' or 'PT5M', not '${shown}'`);
  }
  return counts.reduce((sum, count, index) => sum + (count ? scaled(count, UNITS[index] ?? 0n) : 0n), 0n);
}

/** Returns a decimal number times a unit, without going through a double. */
function scaled(decimal: string, unit: bigint): bigint {
  const [whole = "0", fraction = ""] = decimal.split(".");
  return (BigInt(whole) * SECOND + BigInt(fraction.padEnd(9, "0"))) * unit / SECOND;
}
