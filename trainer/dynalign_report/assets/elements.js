"use strict";
// What the report and the live page share: elements whose texts are always text, and the theme.

/** An element with properties and children; strings become text nodes, so that nothing in them is markup. */
function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const themes = ["system", "light", "dark"];
const themeListeners = [];

function startTheme() {
  const button = document.getElementById("theme");
  let chosen = 0;
  const show = () => {
    if (chosen === 0) delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = themes[chosen];
    button.textContent = `Theme: ${themes[chosen]}`;
    themeListeners.forEach((listener) => listener());
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    chosen = (chosen + 1) % themes.length;
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => themeListeners.forEach((f) => f()));
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.printing = "";
    themeListeners.forEach((listener) => listener());
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.printing;
    themeListeners.forEach((listener) => listener());
  });
}

startTheme();
