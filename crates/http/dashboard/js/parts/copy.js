// Text to be copied, with a button. Without a secure context there is no clipboard API: then the text is selected and
// the browser's own copy is asked.
import { html, useRef, useState } from "../dom.js";
import { t } from "../i18n.js";
import { Icon } from "./icons.js";

export function Copyable({ text, testid }) {
  const pre = useRef(null);
  const [outcome, setOutcome] = useState("");
  const copy = async () => {
    setOutcome((await copyText(text, pre.current)) ? "copied" : "selected");
    setTimeout(() => setOutcome(""), 4000);
  };
  return html`<div class="copyable">
    <pre class="code wrap" ref=${pre} tabindex="0" data-testid=${testid}>${text}</pre>
    <button type="button" class="button" onClick=${copy} data-testid=${testid && `${testid}-copy`}><${Icon} name="copy" />
      <span aria-live="polite">${outcome ? t(`copy.${outcome}`) : t("copy.copy")}</span></button>
  </div>`;
}

async function copyText(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}
