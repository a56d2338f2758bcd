/**
 * The one place that knows where files of an endpoint are.
 * @module
 */
import { EX, UserError } from "./errors.ts";

/** The user's home directory. */
export function homeDir(): string {
  const home = Deno.env.get("HOME");
  if (!home) {
    throw new UserError("There is no home directory: the variable HOME is not set", {
      exit: EX.oserr,
      hint: "Set HOME, or name the directory with --config-dir or GLOBUS_COMPUTE_USER_DIR",
    });
  }
  return home;
}

/** Expands a leading `~` and `$VAR` or `${VAR}`, as the public agent does for `paths`. */
export function expandPath(path: string): string {
  const tilde = path === "~" || path.startsWith("~/") ? homeDir() + path.slice(1) : path;
  return tilde.replace(
    /\$(?:\{(\w+)\}|(\w+))/g,
    (whole, braced, bare) => Deno.env.get(braced ?? bare) ?? whole,
  );
}

/**
 * The compute directory: `--config-dir`, else `GLOBUS_COMPUTE_USER_DIR`, else `~/.globus_compute`
 * (protocol.md section 1). It is not made here.
 */
export function computeDir(configDir?: string): string {
  const chosen = configDir ?? Deno.env.get("GLOBUS_COMPUTE_USER_DIR");
  if (!chosen) return `${homeDir()}/.globus_compute`;
  const expanded = expandPath(chosen);
  return expanded.startsWith("/") ? expanded : `${Deno.cwd()}/${expanded}`;
}

/** The files of one endpoint. */
export interface EndpointPaths {
  /** The endpoint's directory, 0700. */
  dir: string;
  /** The configuration, `config.yaml`. */
  config: string;
  /** The template of user endpoints, Jinja2. */
  template: string;
  /** JSON Schema of what users may put into the template. */
  schema: string;
  /** Variables of user endpoints. */
  userEnvironment: string;
  /** Who may be whom on this host. */
  identityMapping: string;
  /** Records of a high-assurance endpoint. */
  auditLog: string;
  /** `{"endpoint_id"}` after the first registration. */
  registration: string;
  /** Touched while the endpoint runs. */
  pid: string;
  /** The log; `GLOBUS_COMPUTE_LOG_PATH` moves it. */
  log: string;
  /** Where tasks run unless configured. */
  workingDir: string;
  /** Scripts given to the scheduler. */
  submitScripts: string;
  /** State of our own: bus store, credentials, sockets, block records. */
  state: string;
}

/** The paths of the endpoint whose directory is `dir`. */
export function endpointPaths(dir: string): EndpointPaths {
  return {
    dir,
    config: `${dir}/config.yaml`,
    template: `${dir}/user_config_template.yaml.j2`,
    schema: `${dir}/user_config_schema.json`,
    userEnvironment: `${dir}/user_environment.yaml`,
    identityMapping: `${dir}/identity_mapping_config.json`,
    auditLog: `${dir}/audit.log`,
    registration: `${dir}/endpoint.json`,
    pid: `${dir}/daemon.pid`,
    log: Deno.env.get("GLOBUS_COMPUTE_LOG_PATH") ?? `${dir}/endpoint.log`,
    workingDir: `${dir}/tasks_working_dir`,
    submitScripts: `${dir}/submit_scripts`,
    state: `${dir}/state`,
  };
}
