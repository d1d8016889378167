// The list of runs: search, filter, pages, one entry a run.

const listState = { words: "", phase: "", page: 1 };
const marks = { good: "✓", bad: "✗", held: "!", plain: "▶" };

function phaseChip(run) {
  const words = run.remark ? `${run.phase} (${run.remark})` : run.phase;
  const mark = run.tone === "plain" && run.phase !== "Running" ? "·" : marks[run.tone];
  return element("span", { class: `chip tone-chip-${run.tone}` }, element("span", { "aria-hidden": "true" }, `${mark} `), words);
}

function progressBar(run) {
  const share = Math.round(100 * run.fraction);
  const bar = element("div", { class: "progress", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": share, "aria-label": `Stages of ${run.name} that are done` });
  const done = element("span", { class: `tone-bar-${run.tone}` });
  done.style.width = `${share}%`;
  bar.append(done);
  return bar;
}

function whenText(run) {
  if (run.endsAt && !run.endedAt) return `ends in about ${spanText(secondsBetween(Date.now(), run.endsAt))} (${clockText(run.endsAt)})`;
  if (run.startedAt && run.endedAt) return `took ${spanText(secondsBetween(run.startedAt, run.endedAt))}`;
  return run.startedAt ? `since ${clockText(run.startedAt)}` : "";
}

function runEntry(run) {
  const facts = [
    run.iteration ? `iteration ${run.iteration}` : "",
    run.stage ? `${run.stage}${run.stageShare ? ` ${run.stageShare}` : ""}` : "",
    run.gpus ? `${run.gpus} GPU${run.gpus > 1 ? "s" : ""}` : "",
    whenText(run),
  ].filter(Boolean);
  return element(
    "li",
    { class: `entry tone-edge-${run.tone}` },
    element("div", { class: "entry-name" }, element("a", { href: `#/run/${encodeURIComponent(run.key)}`, "data-key": run.key }, element("bdi", {}, run.name)), element("p", {}, run.isCluster ? "namespace " : "", element("bdi", {}, run.group))),
    element("div", { class: "entry-state" }, phaseChip(run), progressBar(run), element("p", { class: "facts" }, facts.join(" · "))),
    element("div", { class: "entry-rate" }, element("p", { class: "what" }, "held-out win rate"), element("p", { class: "value" }, run.winRate || "not yet")),
    element("div", { class: "entry-words" }, element("p", {}, ...prose(run.sentence)), run.toDo ? element("p", { class: "to-do" }, element("strong", {}, "To do: "), ...prose(run.toDo)) : null),
  );
}

function listView(main) {
  const search = element("input", { type: "search", value: listState.words, placeholder: "name, namespace, phase, reason", oninput: () => refresh({ words: search.value, page: 1 }) });
  const phases = element("div", { class: "phases", role: "group", "aria-label": "Phase" });
  const notes = element("div");
  const status = element("p", { class: "status", role: "status" });
  const list = element("ul", { class: "entries" });
  const previous = element("button", { type: "button", onclick: () => refresh({ page: listState.page - 1 }) }, "Previous");
  const next = element("button", { type: "button", onclick: () => refresh({ page: listState.page + 1 }) }, "Next");
  const position = element("span", { class: "position" });
  const pages = element("div", { class: "pages" }, previous, position, next);
  main.replaceChildren(
    element("section", { "aria-label": "Runs" }, element("div", { class: "controls" }, element("label", { class: "search" }, element("span", {}, "Search"), search), phases), notes, status, list, pages),
  );
  let known = "";
  let asked = 0;

  function phaseButton(phase, count) {
    const pressed = listState.phase === phase;
    return element("button", { type: "button", class: "quiet", "aria-pressed": String(pressed), "data-phase": phase, onclick: () => refresh({ phase, page: 1 }) }, `${phase || "All"} ${count}`);
  }

  function draw(data) {
    const focused = document.activeElement?.dataset ?? {};
    notes.replaceChildren(...data.notes.map((note) => element("p", { class: "note" }, ...prose(note))));
    const all = Object.values(data.phases).reduce((sum, count) => sum + count, 0);
    phases.replaceChildren(phaseButton("", all), ...Object.entries(data.phases).map(([phase, count]) => phaseButton(phase, count)));
    status.textContent = data.matched === data.total ? `${data.total} run${data.total === 1 ? "" : "s"}` : `${data.matched} of ${data.total} runs`;
    list.replaceChildren(...data.rows.map(runEntry));
    if (data.total === 0) list.replaceChildren(element("li", { class: "empty" }, ...prose("There are no runs yet: `dynalign run FILE` starts one here, `kubectl apply -f FILE` one in a cluster.")));
    pages.hidden = data.pages === 1;
    position.textContent = `Page ${data.page} of ${data.pages}`;
    previous.disabled = data.page === 1;
    next.disabled = data.page === data.pages;
    listState.page = data.page;
    if (focused.key) list.querySelector(`[data-key="${CSS.escape(focused.key)}"]`)?.focus();
    else if (focused.phase !== undefined) phases.querySelector(`[data-phase="${focused.phase}"]`)?.focus();
  }

  async function look() {
    const mine = ++asked;
    const text = await guarded(() => ask("/api/runs", listState));
    if (text === null || mine !== asked || !list.isConnected) return;
    if (text !== known) draw(JSON.parse(text));
    known = text;
  }

  function refresh(changes) {
    Object.assign(listState, changes);
    known = "";
    return look();
  }

  setTitle("Runs");
  return poll(look);
}
