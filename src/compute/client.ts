/**
 * The Compute service's REST interface, as far as an endpoint needs it (protocol.md section 2).
 * @module
 */
import { z } from "zod";
import { EX, retry, STANDS_IN_FOR, UserError } from "../base/mod.ts";

/** What is registered. */
export interface Registration {
  /** Name in the compute directory. */
  endpoint_name: string;
  /** Name for people. */
  display_name?: string | null;
  /** Whether everybody may use it. */
  public: boolean;
  /** Whether it is a high-assurance endpoint. */
  high_assurance: boolean;
  /** Whether it starts endpoints of others. */
  multi_user: boolean;
  /** Function UUIDs that may run; absent for all. */
  allowed_functions?: string[] | null;
  /** UUID of a policy that callers must satisfy. */
  authentication_policy?: string | null;
  /** UUID of the subscription it belongs to. */
  subscription_uuid?: string | null;
  /** Identity UUIDs that may manage it. */
  admins?: string[] | null;
  /** Facts about host and software. */
  metadata: Record<string, unknown>;
}

const queue = z.object({
  connection_url: z.string(),
  queue: z.string(),
  exchange: z.string().nullish(),
  queue_publish_kwargs: z.object({
    exchange: z.string(),
    routing_key: z.string(),
    mandatory: z.boolean().optional(),
    properties: z.object({ delivery_mode: z.number().optional() }).optional(),
  }).nullish(),
});

const registered = z.object({
  endpoint_id: z.string(),
  task_queue_info: queue,
  result_queue_info: queue,
  heartbeat_queue_info: queue,
});

/** A queue as the service describes it. */
export interface RegisteredQueue {
  /** AMQP URL with credentials: never to be logged. */
  connection_url: string;
  /** Name of the queue. */
  queue: string;
  /** Exchange, where it is published to. */
  exchange?: string | null;
  /** How messages are published. */
  queue_publish_kwargs?: {
    exchange: string;
    routing_key: string;
    mandatory?: boolean;
    properties?: { delivery_mode?: number };
  } | null;
}

/** The queues of a user endpoint, as the service gave them. */
export interface Registered {
  /** UUID of the endpoint. */
  endpoint_id: string;
  /** Where tasks come from. */
  task_queue_info: RegisteredQueue;
  /** Where results go. */
  result_queue_info: RegisteredQueue;
  /** Where status reports go. */
  heartbeat_queue_info: RegisteredQueue;
}

/** The service's address: `http://localhost:5000` if it is local, else by environment. */
export function serviceUrl(options: { local: boolean; environment: string | null }): string {
  if (options.local) return "http://localhost:5000";
  const environment = options.environment ?? Deno.env.get("GLOBUS_SDK_ENVIRONMENT");
  if (!environment || environment === "production") return "https://compute.api.globus.org";
  if (environment === "local") return "http://localhost:5000";
  return `https://compute.api.${environment}.globuscs.info`;
}

/** Speaks to one Compute service. */
export class ComputeClient {
  readonly #url: string;
  readonly #token: () => Promise<string>;

  /** Makes it; nothing happens before its first call. */
  constructor(url: string, token: () => Promise<string>) {
    this.#url = url;
    this.#token = token;
  }

  /**
   * Registers an endpoint, under a known id if there is one.
   * @throws {UserError} with the exit codes of protocol.md section 2
   */
  async register(body: Registration, endpointId: string | null): Promise<Registered> {
    const path = endpointId ? `/v3/endpoints/${endpointId}` : "/v3/endpoints";
    const answer = await this.#call(endpointId ? "PUT" : "POST", path, body);
    if (!answer.ok) throw await registrationError(answer);
    const parsed = registered.safeParse(await answer.json().catch(() => null));
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      throw new UserError(
        `The service's registration answer cannot be used: ${issue!.path.join(".")} ${
          issue!.message
        }`,
        { exit: EX.software },
      );
    }
    if (endpointId && parsed.data.endpoint_id !== endpointId) {
      throw new UserError(
        `The service registered ${parsed.data.endpoint_id}, not ${endpointId} that was asked for`,
        { exit: EX.software },
      );
    }
    return parsed.data;
  }

  /** Removes an endpoint from the service. A service that does not know it is no error. */
  async deleteEndpoint(endpointId: string): Promise<void> {
    const answer = await this.#call("DELETE", `/v2/endpoints/${endpointId}`);
    await answer.body?.cancel();
    if (!answer.ok && answer.status !== 404) {
      throw new UserError(`The service refused to delete ${endpointId} (HTTP ${answer.status})`, {
        exit: EX.unavailable,
      });
    }
  }

  async #call(method: string, path: string, body?: unknown): Promise<Response> {
    const token = await this.#token();
    try {
      return await retry(() =>
        fetch(this.#url + path, {
          method,
          headers: {
            authorization: `Bearer ${token}`,
            "content-type": "application/json",
            "user-agent": `globus-compute-endpoint-${STANDS_IN_FOR}`,
          },
          body: body === undefined ? undefined : JSON.stringify(body),
          signal: AbortSignal.timeout(60_000),
        }), { attempts: 3, minMs: 300 });
    } catch (error) {
      throw new UserError(`The Compute service ${this.#url} cannot be reached`, {
        exit: EX.tempfail,
        cause: error,
      });
    }
  }
}

async function registrationError(answer: Response): Promise<UserError> {
  const text = await answer.text();
  let reason = text.slice(0, 500);
  try {
    reason = (JSON.parse(text) as { reason?: string }).reason ?? reason;
  } catch { /* not the service's own shape */ }
  const { status } = answer;
  if ([404, 409, 423].includes(status)) {
    return new UserError(`Endpoint registration blocked. [${reason}]`, { exit: EX.unavailable });
  }
  if (status === 400 || status === 422) {
    return new UserError(`The service refused the registration: ${reason}`, { exit: EX.dataerr });
  }
  if (status === 401 || status === 403) {
    return new UserError(`The service does not accept this login: ${reason}`, { exit: EX.noperm });
  }
  return new UserError(`The service could not register the endpoint (HTTP ${status}): ${reason}`, {
    exit: status >= 500 ? EX.tempfail : EX.failure,
  });
}
