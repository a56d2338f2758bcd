/**
 * What the service remembers, in one SQLite file (0600): clients, functions, endpoints, tasks with their results.
 * @module
 */
import { DatabaseSync } from "node:sqlite";
import { makePrivateDir, wallMs } from "../base/mod.ts";

/** A function as registered. `packed` is what precedes the arguments in a task buffer. */
export interface FunctionRow {
  id: string;
  owner: string;
  name: string;
  packed: string;
  public: number;
  meta: string;
}

/** An endpoint as registered. */
export interface EndpointRow {
  id: string;
  owner: string;
  name: string;
  display_name: string | null;
  public: number;
  /** JSON list of function ids, or null for all. */
  allowed: string | null;
  metadata: string;
  /** JSON of the last status report. */
  report: string | null;
  /** Milliseconds since the epoch until which it counts as online. */
  online_until: number;
  stopped: number;
  locked_until: number;
}

/** A task. */
export interface TaskRow {
  id: string;
  owner: string;
  endpoint: string;
  function: string;
  task_group: string;
  created: number;
  status: string;
  result: string | null;
  exception: string | null;
  details: string | null;
  completed: number | null;
  deliver: number;
}

const SCHEMA = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = NORMAL;
  CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS clients (
    id TEXT PRIMARY KEY, secret_hash TEXT NOT NULL, name TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS functions (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, packed TEXT NOT NULL,
    public INTEGER NOT NULL, meta TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS endpoints (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, display_name TEXT,
    public INTEGER NOT NULL, allowed TEXT, metadata TEXT NOT NULL, report TEXT,
    online_until INTEGER NOT NULL DEFAULT 0, stopped INTEGER NOT NULL DEFAULT 0,
    locked_until INTEGER NOT NULL DEFAULT 0);
  CREATE TABLE IF NOT EXISTS tasks (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, endpoint TEXT NOT NULL, function TEXT NOT NULL,
    task_group TEXT NOT NULL, created INTEGER NOT NULL, status TEXT NOT NULL, result TEXT,
    exception TEXT, details TEXT, completed INTEGER, deliver INTEGER NOT NULL);
  CREATE INDEX IF NOT EXISTS tasks_by_group ON tasks (task_group);
`;

/** The service's database. */
export class Store {
  readonly #db: DatabaseSync;

  /** @param dir made with mode 0700 if it is missing */
  /** Makes it; nothing happens before its first call. */
  constructor(dir: string) {
    makePrivateDir(dir);
    const path = `${dir}/service.db`;
    // made here first, so that it is private from its first byte
    Deno.openSync(path, { write: true, create: true, mode: 0o600 }).close();
    this.#db = new DatabaseSync(path);
    this.#db.exec(SCHEMA);
  }

  /** Ends it for good. */
  close(): void {
    this.#db.close();
  }

  /** One write for many changes. */
  transaction<T>(work: () => T): T {
    this.#db.exec("BEGIN");
    try {
      const value = work();
      this.#db.exec("COMMIT");
      return value;
    } catch (error) {
      this.#db.exec("ROLLBACK");
      throw error;
    }
  }

  /** A setting's value. */
  setting(name: string): string | undefined {
    const row = this.#db.prepare("SELECT value FROM settings WHERE name = ?").get(name);
    return row?.value as string | undefined;
  }

  /** Sets a setting. */
  setSetting(name: string, value: string): void {
    this.#db.prepare("INSERT OR REPLACE INTO settings VALUES (?, ?)").run(name, value);
  }

  /** Adds a client. */
  addClient(client: { id: string; secretHash: string; name: string }): void {
    this.#db.prepare("INSERT OR REPLACE INTO clients VALUES (?, ?, ?)")
      .run(client.id, client.secretHash, client.name);
  }

  /** A client by id. */
  client(id: string): { id: string; secret_hash: string; name: string } | undefined {
    return this.#db.prepare("SELECT * FROM clients WHERE id = ?").get(id) as never;
  }

  /** Adds a function. */
  addFunction(row: FunctionRow): void {
    this.#db.prepare("INSERT INTO functions VALUES (?, ?, ?, ?, ?, ?)")
      .run(row.id, row.owner, row.name, row.packed, row.public, row.meta);
  }

  /** A function by id. */
  function(id: string): FunctionRow | undefined {
    return this.#db.prepare("SELECT * FROM functions WHERE id = ?").get(id) as never;
  }

  /** Removes a function. */
  deleteFunction(id: string): void {
    this.#db.prepare("DELETE FROM functions WHERE id = ?").run(id);
  }

  /** Adds an endpoint, or changes what is registered of it. */
  putEndpoint(
    row: Omit<EndpointRow, "report" | "online_until" | "stopped" | "locked_until">,
  ): void {
    this.#db.prepare(
      `INSERT INTO endpoints (id, owner, name, display_name, public, allowed, metadata)
      VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name,
      display_name = excluded.display_name, public = excluded.public, allowed = excluded.allowed,
      metadata = excluded.metadata, stopped = 0`,
    )
      .run(row.id, row.owner, row.name, row.display_name, row.public, row.allowed, row.metadata);
  }

  /** An endpoint by id. */
  endpoint(id: string): EndpointRow | undefined {
    return this.#db.prepare("SELECT * FROM endpoints WHERE id = ?").get(id) as never;
  }

  /** All endpoints. */
  endpoints(): EndpointRow[] {
    return this.#db.prepare("SELECT * FROM endpoints").all() as never;
  }

  /** Keeps a status report; `onlineUntil` 0 means it said goodbye. */
  reportEndpoint(id: string, report: string, onlineUntil: number): void {
    this.#db.prepare("UPDATE endpoints SET report = ?, online_until = ?, stopped = ? WHERE id = ?")
      .run(report, onlineUntil, onlineUntil === 0 ? 1 : 0, id);
  }

  /** Refuses registrations until then (milliseconds since the epoch). */
  lockEndpoint(id: string, until: number): void {
    this.#db.prepare("UPDATE endpoints SET locked_until = ? WHERE id = ?").run(until, id);
  }

  /** Removes an endpoint. */
  deleteEndpoint(id: string): void {
    this.#db.prepare("DELETE FROM endpoints WHERE id = ?").run(id);
  }

  /** Adds a task that waits. */
  addTask(
    row: Pick<TaskRow, "id" | "owner" | "endpoint" | "function" | "task_group" | "deliver">,
  ): void {
    this.#db.prepare(
      `INSERT INTO tasks (id, owner, endpoint, function, task_group, created, status, deliver)
       VALUES (?, ?, ?, ?, ?, ?, 'waiting-for-ep', ?)`,
    ).run(row.id, row.owner, row.endpoint, row.function, row.task_group, wallMs(), row.deliver);
  }

  /** A task by id. */
  task(id: string): TaskRow | undefined {
    return this.#db.prepare("SELECT * FROM tasks WHERE id = ?").get(id) as never;
  }

  /** All tasks of a group. */
  tasksOf(group: string): TaskRow[] {
    return this.#db.prepare("SELECT * FROM tasks WHERE task_group = ?").all(group) as never;
  }

  /** Stores a result; a task keeps its first. @returns whether this was it */
  finishTask(
    id: string,
    end: {
      status: string;
      result: string | null;
      exception: string | null;
      details: string | null;
    },
  ): boolean {
    const { changes } = this.#db.prepare(
      `UPDATE tasks SET status = ?, result = ?, exception = ?, details = ?, completed = ?
       WHERE id = ? AND completed IS NULL`,
    ).run(end.status, end.result, end.exception, end.details, wallMs(), id);
    return changes === 1;
  }
}
