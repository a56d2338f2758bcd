/**
 * Counts what JUnit files report: the one source of the numbers that `./dev test` prints.
 * @module
 */

/** How the cases of one or several suites ended. */
export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/**
 * Counts the cases of a JUnit file by the elements themselves, not by the sums in its head.
 *
 * @throws {SyntaxError} if the file ends before its root element does
 */
export function countJunit(xml: string): Counts {
  if (!/<\/testsuites?>\s*$/.test(xml)) throw new SyntaxError("The JUnit file is cut short");
  // text may quote tags: only markup counts
  const markup = xml.replace(/<!\[CDATA\[[\s\S]*?\]\]>/g, "");
  const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  for (
    const [, head, body] of markup.matchAll(
      /<testcase\b((?:[^>"]|"[^"]*")*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g,
    )
  ) {
    if (/<(failure|error)\b/.test(body ?? "")) counts.failed++;
    // Deno reports a case that never ended as skipped, but without a time
    else if (/<skipped\b/.test(body ?? "")) {
      if (/ time="/.test(head!)) counts.skipped++;
      else counts.failed++;
    } else counts.passed++;
  }
  return counts;
}

/**
 * The verdict on one suite from its exit code and its report.
 *
 * A suite that failed without a failed case, wrote no report, or ran nothing counts as one failure; so does
 * each test file that does not appear in the report (it failed while it was loaded).
 *
 * @param code exit code of the runner
 * @param xml its report, `undefined` if it wrote none
 * @param options `files` are the test files that must appear in the report, relative to the project
 */
export function judge(
  code: number,
  xml: string | undefined,
  options: { files?: readonly string[] } = {},
): Counts & { note?: string } {
  let counts: Counts;
  try {
    if (xml === undefined) throw new SyntaxError("It wrote no report");
    counts = countJunit(xml);
  } catch (error) {
    return { passed: 0, failed: 1, skipped: 0, note: (error as Error).message };
  }
  const absent = (options.files ?? []).filter((file) =>
    !xml!.includes(`<testsuite name="./${file}"`)
  );
  if (absent.length > 0) {
    counts.failed += absent.length;
    return { ...counts, note: `No case was run of ${absent.join(", ")}` };
  }
  if (code !== 0 && counts.failed === 0) {
    return { ...counts, failed: 1, note: `It ended with ${code} though no case failed` };
  }
  if (counts.passed + counts.failed + counts.skipped === 0) {
    return { ...counts, failed: 1, note: "It ran no case" };
  }
  if (code === 0 && counts.failed > 0) return { ...counts, note: "It ended with 0" };
  return counts;
}

/** The sum of several counts. */
export function sum(all: readonly Counts[]): Counts {
  const total: Counts = { passed: 0, failed: 0, skipped: 0 };
  for (const counts of all) {
    total.passed += counts.passed;
    total.failed += counts.failed;
    total.skipped += counts.skipped;
  }
  return total;
}
