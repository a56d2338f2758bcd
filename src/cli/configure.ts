/**
 * `endpoint configure NAME`: makes an endpoint's directory.
 * @module
 */
import {
  computeDir,
  endpointPaths,
  EX,
  makePrivateDir,
  readAsset,
  UserError,
  writePrivate,
} from "../base/mod.ts";
import { type Globals, isDirectory, readArguments, requireName } from "./globals.ts";

/** Runs `configure`. */
export function configureCommand(args: string[], globals: Globals): Promise<number> {
  const { positional } = readArguments(args, { globals });
  const name = positional[0] ?? "default";
  requireName(name);
  const paths = endpointPaths(`${computeDir(globals.configDir)}/${name}`);
  if (isDirectory(paths.dir)) {
    throw new UserError(`An endpoint named ${name} is there already`, {
      exit: EX.failure,
      file: paths.dir,
    });
  }
  makePrivateDir(paths.dir);
  writePrivate(paths.config, readAsset("templates/config.yaml"));
  console.log(`Made ${paths.config}`);
  console.log(`Look at it, then: endpoint start ${name}`);
  return Promise.resolve(EX.ok);
}
