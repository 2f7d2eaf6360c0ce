// A question that is answered with a name and a comment: who acknowledges, silences, begins maintenance, and why.
import { html, useEffect, useId, useRef, useState } from "../dom.js";
import { t } from "../i18n.js";
import { remember, remembered } from "../prefs.js";

/**
 * `onSubmit({ by, comment })` does it; the message of what it throws is shown and the dialog stays. `children` are further fields.
 * Test names begin with `prefix`.
 */
export function PersonDialog({ prefix, title, text, action, commentNeeded = false, children, onSubmit, onClose }) {
  const dialog = useRef(null);
  const id = useId();
  const [by, setBy] = useState(remembered("name") ?? "");
  const [comment, setComment] = useState("");
  const [sending, setSending] = useState(false);
  const [problem, setProblem] = useState(null);
  useEffect(() => { dialog.current.showModal(); }, []);
  const submit = async (event) => {
    event.preventDefault();
    const [name, why] = [by.trim(), comment.trim()];
    if (!name) return setProblem(t("person.nameMissing"));
    if (commentNeeded && !why) return setProblem(t("person.reasonMissing"));
    setSending(true);
    setProblem(null);
    try {
      await onSubmit({ by: name, comment: why });
      remember("name", name);
      dialog.current.close();
    } catch (error) {
      setProblem(error.message);
      setSending(false);
    }
  };
  return html`<dialog ref=${dialog} aria-labelledby=${id} data-testid=${`${prefix}-dialog`} onClose=${onClose}>
    <form onSubmit=${submit} novalidate>
      <div class="dialog-body">
        <h2 id=${id}>${title}</h2>
        ${text && html`<p class="break">${text}</p>`}
        ${children}
        <label class="field"><span>${t("person.name")}</span>
          <input class="input" data-testid=${`${prefix}-name`} autocomplete="name" maxlength="120" required autofocus value=${by} aria-invalid=${problem !== null && !by.trim()} onInput=${(event) => setBy(event.currentTarget.value)} /></label>
        <label class="field"><span>${t(commentNeeded ? "person.reason" : "person.comment")}</span>
          <textarea class="input" data-testid=${`${prefix}-comment`} rows="3" maxlength="1000" value=${comment} aria-invalid=${problem !== null && commentNeeded && !comment.trim()} onInput=${(event) => setComment(event.currentTarget.value)}></textarea></label>
        ${problem && html`<p class="banner error" role="alert" data-testid=${`${prefix}-error`}>${problem}</p>`}
      </div>
      <div class="dialog-actions">
        <button type="button" class="button" data-testid=${`${prefix}-cancel`} onClick=${() => dialog.current.close()}>${t("action.cancel")}</button>
        <button type="submit" class="button primary" data-testid=${`${prefix}-submit`} disabled=${sending}>${sending ? t("person.sending") : action}</button>
      </div>
    </form>
  </dialog>`;
}
