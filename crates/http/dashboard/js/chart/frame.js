// Puts a uPlot into the page: follows the width of its box, and starts anew when theme or language change, because a
// canvas doesn't hear of either.
import { html, useEffect, useLayoutEffect, useRef } from "../dom.js";
import { language } from "../i18n.js";
import { theme } from "../theme.js";

/**
 * `create(element, width, height)` makes the chart and returns it; `chart` is a ref that holds it. `feed()` puts data in:
 * it runs after each start and whenever `data` (any value) changes.
 */
export function ChartFrame({ chart, create, feed, data, height, label, ...rest }) {
  const box = useRef(null);
  const [shownTheme, shownLanguage] = [theme.value, language.value];

  useLayoutEffect(() => {
    chart.current = create(box.current, box.current.clientWidth, height);
    feed();
    const observer = new ResizeObserver(() => {
      const width = box.current?.clientWidth;
      if (width > 0 && width !== chart.current.width) chart.current.setSize({ width, height });
    });
    observer.observe(box.current);
    return () => {
      observer.disconnect();
      chart.current.destroy();
      chart.current = null;
    };
  }, [shownTheme, shownLanguage, height]);

  useEffect(() => { if (chart.current) feed(); }, [data]);

  return html`<div class="chart" ref=${box} role="img" aria-label=${label} ...${rest}></div>`;
}
