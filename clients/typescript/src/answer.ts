/** What the server answers. */

/** Returns what an answer is about. Throws Error where the answer lacks it. */
export function given<Value>(value: Value | undefined): Value {
  if (value === undefined) {
    throw new Error("the answer of the server lacks what it is about");
  }
  return value;
}
