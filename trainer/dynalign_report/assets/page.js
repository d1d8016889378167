"use strict";
// What all parts of the page use: its data, elements whose texts are always text, and the theme.

const reportData = JSON.parse(document.getElementById("report-data").textContent);

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

/** The text of a compressed chunk. */
async function unpack(id) {
  const binary = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const unpackedRows = new Map();

/** The rows of a chunk, parsed once. */
function rowsOf(id) {
  if (!unpackedRows.has(id)) unpackedRows.set(id, unpack(id).then(JSON.parse));
  return unpackedRows.get(id);
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
