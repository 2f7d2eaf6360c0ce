// Languages: one dictionary file each, with the same keys (check/languages.mjs checks that), loaded when it is wanted.
import { effect, signal } from "./dom.js";
import { remember, remembered } from "./prefs.js";

const DICTIONARIES = {};
export const LANGUAGES = [["en", "English"], ["pt-BR", "Português"]];

const offered = (tag) => LANGUAGES.some(([each]) => each === tag);

function preferred() {
  const kept = remembered("language");
  if (offered(kept)) return kept;
  const first = (navigator.languages ?? [navigator.language]).find((tag) => /^(en|pt)\b/i.test(tag ?? ""));
  return /^pt\b/i.test(first ?? "") ? "pt-BR" : "en";
}

async function load(tag) {
  DICTIONARIES[tag] ??= (await import(`./lang/${tag}.js`)).default;
}

const first = preferred();
// The page has no words before this: whoever imports this module waits.
await load(first);
export const language = signal(first);

export async function setLanguage(tag) {
  if (!offered(tag)) return;
  await load(tag);
  language.value = tag;
  remember("language", tag);
}

export function startLanguage() {
  effect(() => { document.documentElement.lang = language.value; });
}

/** The text of `key`, with `{name}` replaced by `values.name`. */
export function t(key, values) {
  const text = DICTIONARIES[language.value][key];
  if (text === undefined) {
    console.error(`no text for "${key}" in ${language.value}`);
    return key;
  }
  if (!values) return text;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** Whether `key` has a text, for words that come from the server (states, types) and may be new. */
export function known(key) {
  return key in DICTIONARIES[language.value];
}

/** The text of a word of the wire under `prefix`, or the word itself when it is not known here. */
export function word(prefix, value) {
  const key = `${prefix}.${value}`;
  return known(key) ? t(key) : String(value ?? "");
}

const pluralRules = new Map();

/** The text of `key.one` or `key.other` as `count` asks; `{n}` is the formatted count. */
export function tn(key, count, formatted = String(count)) {
  const tag = language.value;
  if (!pluralRules.has(tag)) pluralRules.set(tag, new Intl.PluralRules(tag));
  const form = pluralRules.get(tag).select(count) === "one" ? "one" : "other";
  return t(`${key}.${form}`, { n: formatted });
}
