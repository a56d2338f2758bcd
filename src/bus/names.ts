/**
 * Names of streams, consumers and subjects, and who may use them. All carry the endpoint's id, so that endpoints can share
 * a site's NATS.
 *
 *     ep.<id>.task.<lane>.<task id>     TASKS   a stored task (body = AMQP body)
 *     ep.<id>.start.<task id>           STARTS  who began it (or that it was released for another attempt)
 *     ep.<id>.result.<task id>          OUTBOX  a manager's result
 *     ep.<id>.answer.<task id>          OUTBOX  the endpoint's own answer; managers may not publish here
 *     ep.<id>.ledger                    LEDGER  ids that were answered
 *     ep.<id>.up.<kind>.<manager id>    reports and goodbyes of managers (not stored)
 *     ep.<id>.down.<manager id | all>   commands to managers (not stored)
 * @module
 */

/** The lane of tasks without a priority; managers wait on it. */
export const DEFAULT_LANE = "default";

/** Lanes of tasks with a priority, in the order they are served. */
export const PRIORITY_LANES = ["p0", "p1", "p2", "p3"] as const;

/** All lanes. */
export const LANES: readonly string[] = [...PRIORITY_LANES, DEFAULT_LANE];

/** Upper bounds of the bands: p0 holds priorities up to 0, p1 up to 9, p2 up to 99, p3 the rest. */
const BAND_TOPS = [0, 9, 99];

/** The lane for a priority (lower runs first); none means {@linkcode DEFAULT_LANE}, the last. */
export function laneOf(priority: number | null): string {
  if (priority === null) return DEFAULT_LANE;
  const band = BAND_TOPS.findIndex((top) => priority <= top);
  return PRIORITY_LANES[band < 0 ? BAND_TOPS.length : band]!;
}

/** Last token of the subject of a ticket: a message in the default lane that stands for one in a priority lane. */
export const TICKET_MARK = "ticket-";

/** Names that belong to one endpoint. */
export class BusNames {
  readonly prefix: string;
  readonly tasks: string;
  readonly starts: string;
  readonly outbox: string;
  readonly ledger: string;
  /** The bridge's consumer on STARTS and on OUTBOX. */
  readonly bridge = "bridge";

  constructor(endpointId: string) {
    this.prefix = `ep.${endpointId}`;
    const stream = (kind: string) => `EP-${endpointId}-${kind}`;
    this.tasks = stream("TASKS");
    this.starts = stream("STARTS");
    this.outbox = stream("OUTBOX");
    this.ledger = stream("LEDGER");
  }

  task(lane: string, taskId: string): string {
    return `${this.prefix}.task.${lane}.${taskId}`;
  }

  start(taskId: string): string {
    return `${this.prefix}.start.${taskId}`;
  }

  result(taskId: string): string {
    return `${this.prefix}.result.${taskId}`;
  }

  answer(taskId: string): string {
    return `${this.prefix}.answer.${taskId}`;
  }

  get ledgerSubject(): string {
    return `${this.prefix}.ledger`;
  }

  up(kind: string, managerId: string): string {
    return `${this.prefix}.up.${kind}.${managerId}`;
  }

  down(managerId: string): string {
    return `${this.prefix}.down.${managerId}`;
  }

  /** Prefix of reply subjects of a role; each role can read only its own. */
  inbox(role: "endpoint" | "manager"): string {
    return `_INBOX_${this.prefix.replaceAll(".", "_")}_${role}`;
  }

  /** What the manager role may publish to and subscribe (invariant 7); `$JS.ACK` is not among it. */
  managerPermissions(): { publish: string[]; subscribe: string[] } {
    return {
      publish: [
        ...LANES.map((lane) => `$JS.API.CONSUMER.MSG.NEXT.${this.tasks}.${lane}`),
        `$JS.API.DIRECT.GET.${this.starts}.${this.prefix}.start.*`,
        `${this.prefix}.start.*`,
        `${this.prefix}.result.*`,
        `${this.prefix}.up.*.*`,
        "_INBOX.>", // answers to the `nats` command line's $SRV requests
      ],
      subscribe: [
        `${this.inbox("manager")}.>`,
        `${this.prefix}.down.*`,
        "$SRV.>",
      ],
    };
  }
}

/** Id of the task that a subject names: its last token. */
export function taskIdOf(subject: string): string {
  return subject.slice(subject.lastIndexOf(".") + 1);
}
