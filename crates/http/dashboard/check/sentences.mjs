// node crates/http/dashboard/check/sentences.mjs
// Every sentence that checks and breakers keep in the log (they are made by Rust code, in English) is known to js/parts/sentences.js.
import { readFileSync } from "node:fs";

const read = (path) => readFileSync(new URL(path, import.meta.url), "utf8");
const crates = "../../..";
const enumOf = (source, begin) => source.slice(source.indexOf(begin)).split("\n}\n")[0];
const failures = enumOf(read(`${crates}/registry/src/probe.rs`), "pub enum Failure");
const causes = enumOf(read(`${crates}/resilience/src/breaker/state.rs`), "impl fmt::Display for Cause");
const sentences = [
  ...[...failures.matchAll(/#\[error\(\s*"([^"]+)"/g)].map(([, text]) => text),
  ...[...causes.matchAll(/write(?:_str|!)\((?:f, )?"([^"]+)"/g)].map(([, text]) => text),
];
const forms = [...read("../js/parts/sentences.js").matchAll(/^ {2}\["\w+", \/(\^.+\$)\/\],$/gm)].map(([, form]) => new RegExp(form));

const problems = sentences.map((text) => text.replaceAll(/\{[^}]*\}/g, "7")).filter((text) => !forms.some((form) => form.test(text)));
if (sentences.length < 15) problems.push(`only ${sentences.length} sentences were found in the Rust code`);
for (const problem of problems) console.error(`not known to sentences.js: ${problem}`);
console.log(`${sentences.length} sentences, ${problems.length} problems`);
process.exit(problems.length ? 1 : 0);
