// The sample browser: prompts with answers side by side, to search, filter and sort. Texts of models are text nodes only.

const pageSizes = { heldOut: 8, candidates: 4 };

function shownNumber(value, digits = 2, sign = false) {
  if (value === null || value === undefined) return "none";
  return (sign && value > 0 ? "+" : "") + value.toFixed(digits);
}

/** A model's text: as it is, with its direction of its own; one that was cut says so. */
function modelText(text, label) {
  const [shown, length] = Array.isArray(text) ? text : [text, 0];
  const properties = { class: "text", dir: "auto", tabindex: "0", role: "group", "aria-label": label };
  const box = element("div", properties, shown === "" ? element("em", {}, "(empty)") : shown);
  if (!length) return box;
  const note = `First ${shown.length.toLocaleString("en")} of ${length.toLocaleString("en")} characters; the run's folder has all.`;
  return element("div", {}, box, element("p", { class: "note" }, note));
}

function plainOf(text) {
  return Array.isArray(text) ? text[0] : text;
}

function thoughtOf(thought) {
  if (!thought) return null;
  return element("details", { class: "thought" }, element("summary", {}, "Thought"), modelText(thought, "Thought"));
}

function promptOf(row) {
  const single = row.m.length === 1 && row.m[0][0] === "user";
  const turns = row.m.map(([role, content]) =>
    element("div", { class: "turn" }, single ? null : element("p", { class: "role" }, role), modelText(content, `Prompt, ${role}`)),
  );
  return element("div", { class: "prompt" }, element("h4", {}, "Prompt ", element("code", {}, row.id)), ...turns);
}

function measures(title, values, scale, digits = 2) {
  const entries = Object.entries(values || {});
  if (entries.length === 0) return null;
  const items = entries.flatMap(([name, value]) => [
    element("dt", {}, name),
    element(
      "dd",
      {},
      scale ? element("meter", { min: 0, max: scale, value: value ?? 0, "aria-label": name }) : null,
      shownNumber(value, digits),
    ),
  ]);
  return element("div", { class: "measures" }, element("p", {}, title), element("dl", {}, ...items));
}

function candidateCard(candidate) {
  const facts = [`reward ${shownNumber(candidate.r, 3)}`];
  if (candidate.a !== undefined) facts.push(`advantage ${shownNumber(candidate.a, 2, true)}`);
  if (candidate.w !== undefined) facts.push(`by the judge alone ${shownNumber(candidate.w, 3)}`);
  if (candidate.x) facts.push("cut off");
  return element(
    "article",
    { class: "answer", "aria-label": `Candidate ${candidate.k}` },
    element("h5", {}, `Candidate ${candidate.k}`),
    element("p", { class: "facts" }, facts.join(" · ")),
    thoughtOf(candidate.h),
    modelText(candidate.t, `Answer of candidate ${candidate.k}`),
    measures("Aspects, 0 to 9", candidate.s, 9, 1),
    measures("Judges", candidate.j, 1),
    measures("Verifiers", candidate.v, 0),
    measures("Penalties", candidate.p, 0),
  );
}

function sideBySide(label, cards, kind = "") {
  return element("div", { class: `side-by-side ${kind}`, tabindex: "0", role: "region", "aria-label": label }, ...cards);
}

function groupView(row) {
  const facts = `mean reward ${shownNumber(row.r, 3)} · spread ${shownNumber(row.sd, 3)}`;
  return element(
    "article",
    { class: "sample" },
    promptOf(row),
    element("p", { class: "facts" }, facts),
    sideBySide(`Candidates of ${row.id}`, row.c.map(candidateCard)),
  );
}

const verdicts = { 1: "won", 0.5: "tied", 0: "lost" };

function verdictText([judge, opponent, outcome, first, second]) {
  const verdict = outcome === null ? "undecided" : (verdicts[outcome] ?? `outcome ${outcome}`);
  const preference = first === null ? "" : ` (preference ${shownNumber(first)} shown first, ${shownNumber(second)} second)`;
  const other = { base: "the base model", previous: "the previous policy" }[opponent] ?? opponent;
  return `Judge ${judge}: ${verdict} against ${other}${preference}`;
}

/** The headline outcome against the base model. */
function outcomeOf(answer) {
  const against = (answer?.o || []).find(([, opponent]) => opponent === "base");
  return against ? against[2] : undefined;
}

function answerCard(title, answer) {
  if (!answer) return element("article", { class: "answer" }, element("h5", {}, title), element("p", { class: "empty" }, "No answer."));
  return element(
    "article",
    { class: "answer", "aria-label": title },
    element("h5", {}, title),
    answer.d === undefined ? null : element("p", { class: "facts" }, `${Math.round(100 * answer.d)} % of the words changed`),
    thoughtOf(answer.h),
    modelText(answer.t, title),
    answer.o && answer.o.length ? element("ul", { class: "verdicts" }, ...answer.o.map((one) => element("li", {}, verdictText(one)))) : null,
    measures("Verifiers", answer.v, 0),
  );
}

function heldOutView(row) {
  const cards = [
    answerCard("Before: base model", { t: row.b, v: row.bv }),
    ...row.after.map(([label, answer]) =>
      answerCard(`After: ${label ? `${label}, ` : ""}${answer ? `iteration ${answer.i}` : "not evaluated"}`, answer),
    ),
  ];
  return element("article", { class: "sample" }, promptOf(row), sideBySide(`Answers to ${row.id}`, cards, "before-after"));
}

/** A labelled select; `choices` are pairs of value and text. */
function choice(label, choices, changed) {
  const select = element("select", { onchange: () => changed() }, ...choices.map(([value, text]) => element("option", { value }, text)));
  return { select, field: element("label", {}, element("span", {}, label), select) };
}

/** Controls, list and pages of one browser. `load` gives rows by the chosen values, `accept` and `compare` by name. */
function startBrowser(section, { fields, search, load, filters, orders, view, size, note }) {
  let page = 0;
  let latest = 0;
  const parts = Object.fromEntries(Object.entries(fields).map(([name, [label, choices]]) => [name, choice(label, choices, () => refresh())]));
  const filter = choice("Show", Object.entries(filters).map(([name]) => [name, name]), () => refresh());
  const order = choice("Order", Object.entries(orders).map(([name]) => [name, name]), () => refresh());
  const input = element("input", { type: "search", placeholder: "words in prompt or answer", oninput: () => refresh() });
  const status = element("p", { class: "status", role: "status" });
  const list = element("div", { class: "samples" });
  const previous = element("button", { type: "button", onclick: () => turn(-1) }, "Previous");
  const next = element("button", { type: "button", onclick: () => turn(1) }, "Next");
  const position = element("span", { class: "position" });
  const chosen = () => Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, part.select.value]));

  async function refresh(keepPage = false) {
    const mine = ++latest;
    if (!keepPage) page = 0;
    const rows = await load(chosen());
    if (mine !== latest) return;
    const words = input.value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    const found = rows
      .filter(filters[filter.select.value])
      .filter((row) => words.length === 0 || words.every((word) => search(row).includes(word)))
      .sort(orders[order.select.value]);
    const pages = Math.max(1, Math.ceil(found.length / size));
    page = Math.min(page, pages - 1);
    list.replaceChildren(...found.slice(page * size, (page + 1) * size).map(view));
    status.textContent = `${found.length} of ${rows.length} prompts${note(chosen())}`;
    position.textContent = `Page ${page + 1} of ${pages}`;
    previous.disabled = page === 0;
    next.disabled = page >= pages - 1;
  }

  async function turn(step) {
    page += step;
    await refresh(true);
    section.scrollIntoView({ block: "start" });
  }

  section.querySelector(".empty").remove();
  section.append(
    element(
      "div",
      { class: "controls" },
      ...Object.values(parts).map((part) => part.field),
      filter.field,
      order.field,
      element("label", { class: "search" }, element("span", {}, "Search"), input),
    ),
    status,
    list,
    element("div", { class: "pages" }, previous, position, next),
  );
  return refresh();
}

function searchText(row, texts) {
  row.found ??= [...row.m.map(([, content]) => content), ...texts].map(plainOf).join("\n").toLocaleLowerCase();
  return row.found;
}

const leftOut = ({ rows, of }) => (rows < of ? `; ${of - rows} more are in the run's folder only` : "");

function startCandidates() {
  const runs = reportData.runs.map((run, index) => ({ ...run, index })).filter((run) => run.iterations.length > 0);
  if (runs.length === 0) return Promise.resolve();
  const places = runs.flatMap((run) => run.iterations.map((entry) => ({ run, entry })));
  const named = places.map(({ run, entry }, index) => [index, `${runs.length > 1 ? `${run.label}, ` : ""}iteration ${entry.iteration}`]);
  return startBrowser(document.getElementById("candidates"), {
    fields: { place: ["Iteration", named.reverse()] },
    load: ({ place }) => rowsOf(places[place].entry.chunk),
    note: ({ place }) => leftOut(places[place].entry),
    search: (row) => searchText(row, row.c.map((candidate) => candidate.t)),
    filters: {
      "all prompts": () => true,
      "with a cut-off answer": (row) => row.c.some((candidate) => candidate.x),
      "with an answer without reward": (row) => row.c.some((candidate) => candidate.r === null),
      "that teach nothing (no spread)": (row) => row.sd === 0,
    },
    orders: {
      "largest spread": (a, b) => b.sd - a.sd,
      "best first": (a, b) => b.r - a.r,
      "worst first": (a, b) => a.r - b.r,
      "by prompt": (a, b) => a.id.localeCompare(b.id),
    },
    view: groupView,
    size: pageSizes.candidates,
  });
}

/** Held-out prompts of all runs: one row a prompt, with the answers of each run's policy. */
async function heldOutRows(runs, iteration) {
  const rows = new Map();
  for (const [position, run] of runs.entries()) {
    for (const found of await rowsOf(run.heldOut.chunk)) {
      const key = JSON.stringify(found.m);
      if (!rows.has(key)) {
        const empty = runs.map((other) => [runs.length > 1 ? other.label : "", undefined]);
        rows.set(key, { ...found, after: empty });
      }
      const answer = iteration === "latest" ? found.a.at(-1) : found.a.find((one) => one.i === Number(iteration));
      rows.get(key).after[position][1] = answer;
    }
  }
  return [...rows.values()];
}

function startHeldOut() {
  const runs = reportData.runs.filter((run) => run.heldOut.rows > 0);
  if (runs.length === 0) return Promise.resolve();
  const outcomes = (row) => row.after.map(([, answer]) => outcomeOf(answer));
  const change = (row) => Math.max(0, ...row.after.map(([, answer]) => answer?.d ?? 0));
  const gain = (row) => Math.max(-1, ...outcomes(row).map((outcome) => outcome ?? -1));
  const loss = (row) => Math.min(2, ...outcomes(row).map((outcome) => outcome ?? 2));
  const known = new Set();
  const all = Promise.all(runs.map((run) => rowsOf(run.heldOut.chunk)));
  return all.then((chunks) => {
    chunks.flat().forEach((row) => row.a.forEach((answer) => known.add(answer.i)));
    const iterations = [...known].sort((a, b) => b - a).map((i) => [i, `iteration ${i}`]);
    return startBrowser(document.getElementById("held-out"), {
      fields: { iteration: ["Answers of", [["latest", "the latest evaluation"], ...iterations]] },
      load: ({ iteration }) => heldOutRows(runs, iteration),
      note: () => runs.map((run) => leftOut(run.heldOut)).join(""),
      search: (row) => searchText(row, [row.b, ...row.after.filter(([, answer]) => answer).map(([, answer]) => answer.t)]),
      filters: {
        "all prompts": () => true,
        "changed answers": (row) => change(row) > 0,
        won: (row) => outcomes(row).includes(1),
        lost: (row) => outcomes(row).includes(0),
        tied: (row) => outcomes(row).includes(0.5),
        undecided: (row) => outcomes(row).includes(null),
      },
      orders: {
        "most changed": (a, b) => change(b) - change(a),
        "best first": (a, b) => gain(b) - gain(a) || change(b) - change(a),
        "worst first": (a, b) => loss(a) - loss(b) || change(b) - change(a),
        "by prompt": (a, b) => a.id.localeCompare(b.id),
      },
      view: heldOutView,
      size: pageSizes.heldOut,
    });
  });
}

/** What a browser that cannot decompress, or a damaged file, leaves to say. */
function explain(error) {
  const text = "DecompressionStream" in globalThis ? `This file is damaged: ${error.message}.` : "This browser cannot unpack the answers and plots; a version of 2023 or later can.";
  document.getElementById("changed").append(element("p", { class: "empty", role: "alert" }, text));
}

document.documentElement.dataset.ready = "no";
Promise.all([chartsReady, startHeldOut(), startCandidates()])
  .catch(explain)
  .finally(() => {
    document.documentElement.dataset.ready = "yes";
  });
