// Which view is shown, what is told in passing, and the confirmation of changes.

const main = document.getElementById("main");
const heading = document.getElementById("title");
let leave = () => {};

function setTitle(text) {
  if (heading.textContent === text) return;
  heading.textContent = text;
  document.title = text === "Runs" ? "dynalign: runs" : `${text}: dynalign`;
}

let telling = 0;

/** Say what a request has done, for some seconds; what went wrong stays until the next sentence. */
function tell(sentence, stays = false) {
  const place = document.getElementById("told");
  clearTimeout(telling);
  place.textContent = sentence;
  place.hidden = false;
  if (!stays) telling = setTimeout(() => (place.hidden = true), 8000);
}

/** The answer to a look; null where there is none, which the banner then explains. */
async function guarded(look) {
  const banner = document.getElementById("banner");
  try {
    const text = await look();
    banner.hidden = true;
    return text;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (banner.textContent !== error.message) banner.textContent = error.message;
    banner.hidden = false;
    return null;
  }
}

/** Ask before something is changed. `send` carries it out; a refusal is told in the dialog. */
function confirmChange({ title, text, yes, field, send }) {
  const dialog = document.getElementById("confirm");
  const [place, problem, button] = ["confirm-field", "confirm-problem", "confirm-yes"].map((id) => document.getElementById(id));
  document.getElementById("confirm-title").textContent = title;
  document.getElementById("confirm-text").textContent = text;
  const { label, ...shape } = { type: "number", step: 1, ...field };
  const input = field ? element("input", { ...shape, required: true }) : null;
  place.replaceChildren(...(input ? [element("label", {}, element("span", {}, `${label} `), input)] : []));
  problem.hidden = true;
  button.textContent = yes;
  button.disabled = false;
  document.getElementById("confirm-no").onclick = () => dialog.close();
  button.onclick = async () => {
    if (input && !input.reportValidity()) return;
    button.disabled = true;
    try {
      await send(input?.type === "number" ? Number(input.value) : input?.value);
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      button.disabled = false;
    }
  };
  dialog.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    button.click();
  };
  dialog.showModal();
}

function show() {
  if (location.hash && !location.hash.startsWith("#/")) return;
  leave();
  document.getElementById("meta").replaceChildren();
  document.getElementById("banner").hidden = true;
  const run = location.hash.match(/^#\/run\/(.+)$/);
  document.getElementById("home").textContent = run ? "← All runs" : "dynalign";
  leave = run ? runView(main, decodeURIComponent(run[1])) : listView(main);
}

// The token has done its work: it is in neither the history nor a screenshot.
if (location.search) history.replaceState(null, "", `${location.pathname}${location.hash}`);
addEventListener("hashchange", () => {
  if (location.hash && !location.hash.startsWith("#/")) return;
  show();
  scrollTo(0, 0);
  heading.focus({ preventScroll: true });
});
show();
