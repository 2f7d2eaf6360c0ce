// Sets the theme before the first paint. A classic script, because modules run after it.
(function () {
  var chosen = null;
  try { chosen = localStorage.getItem("farol.theme"); } catch (_) { /* storage may be refused: follow the system */ }
  var dark = chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
