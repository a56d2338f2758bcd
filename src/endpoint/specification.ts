/**
 * What a task's resource specification may hold, by engine (protocol.md section 5).
 * @module
 */
import type { SpecificationCheck } from "./intake.ts";

/** The check for an engine: GlobusComputeEngine takes `priority`, pools take nothing. */
export function specificationCheck(engine: string): SpecificationCheck {
  return (text) => {
    if (text === null) return { priority: null };
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return { refused: "The resource_specification is no JSON; submit the task again without it" };
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      return { refused: "The resource_specification is no mapping of keys to values" };
    }
    const { priority, ...others } = value as Record<string, unknown>;
    const wrong = Object.keys(others);
    if (engine !== "GlobusComputeEngine" && priority !== undefined) wrong.unshift("priority");
    if (wrong.length > 0) {
      const takes = engine === "GlobusComputeEngine" ? "takes only priority" : "takes none";
      return {
        refused: `The resource_specification holds ${
          wrong.join(", ")
        }; this endpoint's ${engine} ${takes}`,
      };
    }
    if (priority === undefined || priority === null) return { priority: null };
    if (typeof priority !== "number" || !Number.isFinite(priority)) {
      return { refused: "The priority in the resource_specification is no number" };
    }
    return { priority };
  };
}
