/**
 * Results that the endpoint makes itself: a task that cannot run is answered with an error the user can act on.
 * @module
 */
import { wallNs } from "../base/mod.ts";
import { encodeMessage, type TaskTransition } from "./messages.ts";

/** Error codes of results (protocol.md section 3). */
export type ErrorCode =
  | "RemoteExecutionError"
  | "MaxResultSizeExceeded"
  | "CouldNotExecuteUserTaskError"
  | "FUNCTION_NOT_ALLOWED"
  | "UNKNOWN_TASK_FAILURE"
  | "TaskCancelled"
  | "WorkerLost"
  | "ManagerLost"
  | "InvalidResourceSpecification"
  | "MalformedTask";

/** What an error result says. */
export interface ErrorResult {
  /** UUID of the task, lower case. */
  taskId: string;
  /** Error code of the result. */
  code: ErrorCode;
  /** One sentence: what happened, to what, why, what to do. */
  text: string;
  /** Facts for the result's details. */
  details?: Record<string, unknown>;
  /** Transitions; made up if absent. */
  statuses?: TaskTransition[];
}

/** Packs an error result for AMQP. */
export function encodeErrorResult(error: ErrorResult): Uint8Array<ArrayBuffer> {
  const timestamp = Number(wallNs());
  return encodeMessage("result", {
    task_id: error.taskId,
    data: error.text,
    error_details: { code: error.code, user_message: error.text },
    details: error.details ?? {},
    task_statuses: error.statuses ?? [
      { timestamp, state: "execution-end", actor: "interchange" },
    ],
  });
}
