// A question before something that others will notice.
import { html, useEffect, useId, useRef } from "../dom.js";
import { t } from "../i18n.js";

export function ConfirmDialog({ title, text, action, onConfirm, onClose, testid }) {
  const dialog = useRef(null);
  const id = useId();
  useEffect(() => { dialog.current.showModal(); }, []);
  const confirm = () => {
    onConfirm();
    dialog.current.close();
  };
  return html`<dialog ref=${dialog} aria-labelledby=${id} data-testid=${testid} onClose=${onClose}>
    <div class="dialog-body"><h2 id=${id}>${title}</h2><p>${text}</p></div>
    <div class="dialog-actions">
      <button type="button" class="button" data-testid="confirm-cancel" onClick=${() => dialog.current.close()}>${t("action.cancel")}</button>
      <button type="button" class="button primary" data-testid="confirm" autofocus onClick=${confirm}>${action}</button>
    </div></dialog>`;
}
