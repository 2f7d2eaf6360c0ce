// node crates/http/dashboard/check/languages.mjs
// Every dictionary has the same keys and the same placeholders, and every key that the code writes out exists.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const js = fileURLToPath(new URL("../js", import.meta.url));
const files = readdirSync(join(js, "lang"));
const dictionaries = new Map();
const problems = [];
for (const file of files) {
  // The files have no package.json beside them that would call them modules.
  const source = readFileSync(join(js, "lang", file), "utf8");
  const written = [...source.matchAll(/^ {2}"([^"]+)":/gm)].map((match) => match[1]);
  for (const key of written.filter((key, at) => written.indexOf(key) !== at)) problems.push(`${file} has "${key}" twice: the first is lost`);
  dictionaries.set(file, (await import(`data:text/javascript,${encodeURIComponent(source)}`)).default);
}

const [reference, ...others] = files;
const first = dictionaries.get(reference);
const placeholders = (text) => [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort().join(" ");
for (const file of others) {
  const dictionary = dictionaries.get(file);
  for (const key of Object.keys(first)) {
    if (!(key in dictionary)) problems.push(`${file} lacks "${key}"`);
    else if (placeholders(dictionary[key]) !== placeholders(first[key])) problems.push(`"${key}": other placeholders in ${file} than in ${reference}`);
  }
  for (const key of Object.keys(dictionary)) if (!(key in first)) problems.push(`${reference} lacks "${key}" of ${file}`);
}
for (const [file, dictionary] of dictionaries) {
  for (const [key, text] of Object.entries(dictionary)) if (!text.trim()) problems.push(`${file}: "${key}" is empty`);
}

const keys = Object.keys(first);
const used = new Set();
const prefixes = new Set();
for (const file of readdirSync(js, { recursive: true })) {
  if (!file.endsWith(".js") || file.startsWith("lang")) continue;
  const source = readFileSync(join(js, file), "utf8");
  for (const [, key] of source.matchAll(/\bt\("([^"]+)"/g)) {
    used.add(key);
    if (!(key in first)) problems.push(`${file} uses "${key}", which no dictionary has`);
  }
  for (const [, key] of source.matchAll(/\btn\("([^"]+)"/g)) {
    for (const form of ["one", "other"]) {
      used.add(`${key}.${form}`);
      if (!(`${key}.${form}` in first)) problems.push(`${file} counts with "${key}", which has no "${form}"`);
    }
  }
  for (const [, prefix] of source.matchAll(/\b(?:t|known)\(`([\w.]+)\$\{/g)) prefixes.add(prefix);
  for (const [, prefix] of source.matchAll(/\bword\("([^"]+)"/g)) prefixes.add(`${prefix}.`);
  // Keys chosen by a condition stand in plain quotes.
  for (const [, key] of source.matchAll(/"([a-z]+\.[A-Za-z.]+)"/g)) if (key in first) used.add(key);
}
for (const key of keys) {
  if (!used.has(key) && ![...prefixes].some((prefix) => key.startsWith(prefix))) problems.push(`"${key}" is used nowhere`);
}

for (const problem of problems) console.error(problem);
console.log(`${files.length} languages, ${keys.length} keys, ${problems.length} problems`);
process.exit(problems.length ? 1 : 0);
