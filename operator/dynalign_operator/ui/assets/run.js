// The page of one run. Parts are drawn anew only where they have changed, so that what is open stays open.

const sections = {
  worked: ["Did it work?", "Answers to held-out prompts, the same in every iteration, against those of the base model; and whether it still can what it could."],
  why: ["Why?", "What training sees and does. Training rewards are those of each iteration's own prompts."],
  judge: ["Can the judge be trusted?", "A judge that rates worthless answers or attacks like real ones rewards nothing in particular."],
  cost: ["What does it cost?", ""],
};
const stageNames = ["prompts", "generate", "judge", "train", "evaluate"];
const stageMarks = { Pending: "·", Running: "▶", Succeeded: "✓", Failed: "✗" };

/** A part of the page that is drawn by `draw` from `pick`ed values, when these have changed. */
function part(place, pick, draw) {
  let known = "";
  return (data) => {
    const values = pick(data);
    const text = JSON.stringify(values) ?? "";
    if (text === known) return;
    known = text;
    const open = new Set([...place.querySelectorAll("details[open]")].map((one) => one.dataset.name));
    place.replaceChildren(...[draw(values)].flat().filter(Boolean));
    place.querySelectorAll("details").forEach((one) => (one.open ||= open.has(one.dataset.name)));
  };
}

function sentences(title, found) {
  return found.length === 0 ? null : element("div", { class: "said" }, element("h3", {}, title), ...found.map((sentence) => element("p", {}, ...prose(sentence))));
}

function situationView({ does, waits, toDo, notes }) {
  return [sentences("Now", does), sentences("Waits", waits), sentences("To do", toDo), ...notes.map((note) => element("p", { class: "note" }, ...prose(`Note: ${note}`)))];
}

function findingView(finding) {
  const interval = finding.low === null || finding.low === undefined ? null : element("div", { class: "interval", "aria-hidden": "true" }, element("span", { class: "half" }), element("span", { class: "range" }), element("span", { class: "dot" }));
  if (interval) {
    const percent = (share) => `${100 * Math.min(1, Math.max(0, share))}%`;
    interval.children[1].style.left = percent(finding.low);
    interval.children[1].style.right = `calc(100% - ${percent(finding.high)})`;
    interval.children[2].style.left = percent(finding.valueShare);
  }
  const sign = { good: "✓", bad: "✗", open: "?" }[finding.tone];
  return element(
    "li",
    { class: `finding tone-${finding.tone}` },
    element("p", { class: "what" }, finding.title),
    element("p", { class: "value" }, finding.value),
    interval,
    element("p", {}, element("span", { class: "sign", "aria-hidden": "true" }, `${sign} `), finding.sentence),
  );
}

function findingsView({ findings, best }) {
  if (findings.length === 0) return element("p", { class: "empty" }, "No evaluation has finished yet.");
  return [element("ul", { class: "findings" }, ...findings.map(findingView)), best ? element("p", { class: "best" }, `Best: ${best}`) : null];
}

function scrolling(label, table) {
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);
}

function tableOf(headings, rows) {
  const head = element("tr", {}, ...headings.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...rest]) => element("tr", {}, element("th", { scope: "row" }, first), ...rest.map((cell) => element("td", {}, cell))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

function stageCell(entry) {
  if (!entry) return "";
  const time = entry.seconds !== null ? spanText(entry.seconds) : entry.startedAt && entry.phase === "Running" ? `since ${clockText(entry.startedAt)}` : "";
  const attempt = entry.attempt > 1 ? `attempt ${entry.attempt}` : "";
  const words = [time, attempt].filter(Boolean).join(", ");
  return element(
    "span",
    { class: `stage stage-${entry.phase.toLowerCase()}` },
    element("span", { "aria-hidden": "true" }, `${stageMarks[entry.phase]} `),
    element("span", { class: "visually-hidden" }, `${entry.phase} `),
    words,
    entry.message && entry.phase !== "Succeeded" ? element("span", { class: "stage-message" }, entry.message) : null,
  );
}

function stagesView({ fetch, iterations, export: last }) {
  const figures = tableOf(
    ["Iteration", "Win rate", "Held-out reward", "Capability, change", "Training reward", "KL"],
    iterations.map((one) => [`${one.index}${one.isBest ? " (best)" : ""}`, one.winRate, one.heldOutReward, one.capability, one.reward, one.kl]),
  );
  const cells = (one) => stageNames.map((name) => stageCell(one.stages.find((entry) => entry.stage === name)));
  const ends = [
    ...(last ? [["export", stageCell(last), "", "", "", ""]] : []),
    ...iterations.map((one) => [String(one.index), ...cells(one)]),
    ...(fetch ? [["fetch", stageCell(fetch), "", "", "", ""]] : []),
  ];
  return [
    iterations.length ? scrolling("Figures of each iteration", figures) : element("p", { class: "empty" }, "No iteration has begun yet."),
    element("h3", {}, "Stages and their times"),
    scrolling("Stages and their times", tableOf(["Iteration", ...stageNames], ends)),
  ];
}

function eventsView(events) {
  if (events.length === 0) return element("p", { class: "empty" }, "No events are known.");
  const items = events.map((one) =>
    element("li", { class: one.isWarning ? "warning" : "" }, element("time", { datetime: one.time }, clockText(one.time)), element("p", {}, element("strong", {}, `${one.isWarning ? "Warning: " : ""}${one.reason}${one.count > 1 ? ` (x${one.count})` : ""}`), ` ${one.message}`)),
  );
  return element("ol", { class: "events", tabindex: "0", "aria-label": "Latest events" }, ...items);
}

function conditionsView(conditions) {
  if (conditions.length === 0) return element("p", { class: "empty" }, "It has none yet.");
  const rows = conditions.map((one) => [one.type, element("span", { class: one.isTrouble ? "trouble" : "" }, `${one.isTrouble ? "✗ " : ""}${one.status}`), one.reason, one.message, clockText(one.since)]);
  const table = tableOf(["Condition", "Status", "Reason", "Message", "Since"], rows);
  table.className = "wrap";
  return scrolling("Conditions", table);
}

function placesView({ files, commands, configuration }) {
  const copy = (text) => element("button", { type: "button", class: "quiet", onclick: () => navigator.clipboard.writeText(text).then(() => tell("Copied.")) }, "Copy", element("span", { class: "visually-hidden" }, ` ${text}`));
  return [
    element("p", {}, "Its files: ", element("code", {}, files)),
    element("dl", { class: "commands" }, ...commands.flatMap(({ title, command }) => [element("dt", {}, title), element("dd", {}, element("code", {}, command), copy(command))])),
    element("details", { "data-name": "configuration" }, element("summary", {}, "Specification"), element("pre", { tabindex: "0", role: "region", "aria-label": "Specification" }, configuration)),
  ];
}

function actionsView(key, again, { actions, report, name }) {
  const button = (text, act) => element("button", { type: "button", onclick: act }, text);
  const wish = (what, more) => ({ key, change: what, generation: actions.generation, ...more });
  const send = (body) => change("/api/change", body).then(tell).finally(again);
  const suspend = () => confirmChange({ title: `Suspend ${name}?`, text: "Its Jobs are deleted and their GPUs become free. Finished stages are kept; the current one begins again when the run goes on.", yes: "Suspend", send: () => send(wish("suspend")) });
  const resume = () => confirmChange({ title: `Resume ${name}?`, text: "It goes on where it stopped, as soon as the cluster has room for its pods.", yes: "Resume", send: () => send(wish("resume")) });
  const more = () => confirmChange({ title: `More iterations for ${name}`, text: `It has ${actions.iterations}. The number may be raised but not lowered; a run that is complete goes on.`, yes: "Set iterations", field: { label: "Iterations", value: actions.iterations + 1, min: actions.iterations + 1, max: 1000 }, send: (value) => send(wish("iterations", { iterations: value })) });
  const make = (event) => {
    event.target.disabled = true;
    change("/api/report", { key }).then(tell, (error) => tell(error.message, true)).finally(again);
  };
  return [
    report.madeAt ? element("a", { class: "button", href: `/report?${new URLSearchParams({ key })}`, target: "_blank", rel: "noopener" }, `Report of ${clockText(report.madeAt)}`) : null,
    report.canBeMade ? button(report.madeAt ? "Make it again" : "Make the report", make) : null,
    actions.canSuspend ? button("Suspend", suspend) : null,
    actions.canResume ? button("Resume", resume) : null,
    actions.canAddIterations ? button("More iterations", more) : null,
    report.sentence ? element("p", { class: report.isTrouble ? "note trouble" : "note" }, ...prose(`${report.sentence}${report.endedAt ? ` (${clockText(report.endedAt)})` : ""}`)) : null,
    ...[actions.note, report.note].filter(Boolean).map((note) => element("p", { class: "note" }, ...prose(note))),
  ];
}

function approvalView(key, again, { approval, name }) {
  if (!approval) return [];
  const { gate, iteration, artifact, subject } = approval;
  const send = (decision, reason = "") => change("/api/approve", { key, gate, iteration, artifact, decision, reason }).then(tell).finally(again);
  const approve = () => confirmChange({ title: `Approve for ${name}?`, text: `You approve ${subject}. The run's status keeps your name and the time.`, yes: "Approve", send: () => send("Approved") });
  const reject = () => confirmChange({ title: `Reject for ${name}?`, text: `You refuse ${subject}. The run ends as failed, and its status keeps your name and the reason.`, yes: "Reject", field: { label: "Reason", type: "text", maxlength: 1024 }, send: (reason) => send("Rejected", reason) });
  const button = (text, act) => element("button", { type: "button", onclick: act }, text);
  return [
    element("h3", {}, "To approve"),
    element("p", {}, `${gate}: ${subject}, since ${clockText(approval.since)}.`),
    approval.sample ? element("details", { "data-name": "sample" }, element("summary", {}, "Sample"), element("pre", { tabindex: "0", role: "region", "aria-label": "Sample" }, approval.sample)) : null,
    element("div", { class: "part-actions" }, button("Approve", approve), button("Reject", reject)),
  ];
}

function metaView(run) {
  const words = [run.iteration ? `iteration ${run.iteration}` : "", run.stage ? `${run.stage}${run.stageShare ? ` ${run.stageShare}` : ""}` : "", run.gpus ? `${run.gpus} GPUs requested` : "", whenText(run)];
  return [phaseChip(run), ...words.filter(Boolean).map((word) => element("span", {}, word)), element("span", {}, "in ", element("bdi", {}, run.place)), progressBar(run)];
}

const headPart = (data) => Object.fromEntries(["name", "phase", "remark", "tone", "iteration", "stage", "stageShare", "gpus", "fraction", "startedAt", "endedAt", "endsAt", "place"].map((name) => [name, data[name]]));

function sectionOf(id, title, lead, ...children) {
  return element("section", { id, "aria-labelledby": `${id}-title` }, element("h2", { id: `${id}-title` }, title), lead ? element("p", { class: "lead" }, lead) : null, ...children);
}

/** Ways to the sections: the address names the run, so that these are no links. */
function contentsView() {
  const titles = { ...Object.fromEntries(Object.entries(sections).map(([name, [title]]) => [name, title])), stages: "Stages", logs: "Logs", events: "Events", places: "Where things are" };
  const go = (name) => {
    const target = document.getElementById(name);
    if (target instanceof HTMLDetailsElement) target.open = true;
    target.scrollIntoView({ block: "start" });
  };
  return element("nav", { class: "contents", "aria-label": "Sections" }, ...Object.entries(titles).map(([name, title]) => element("button", { type: "button", "data-section": name, onclick: () => go(name) }, title)));
}

function runView(main, key) {
  const places = Object.fromEntries(["situation", "approval", "actions", "findings", "stages", "events", "conditions", "places"].map((name) => [name, element("div", { class: `part-${name}` })]));
  const charts = Object.fromEntries(Object.keys(sections).map((name) => [name, element("div", { class: "charts" })]));
  const logs = logSection(key);
  const contents = contentsView();
  main.before(contents);
  main.replaceChildren(
    element("section", { class: "notice", "aria-label": "What it does and what to do" }, places.situation, places.approval, places.actions),
    ...Object.entries(sections).map(([name, [title, lead]]) => sectionOf(name, title, lead, name === "worked" ? places.findings : null, charts[name])),
    sectionOf("stages", "Iterations and stages", "", places.stages),
    element("section", {}, logs.view),
    sectionOf("events", "Events", "", places.events),
    sectionOf("conditions", "Conditions", "", places.conditions),
    sectionOf("places", "Where things are", "", places.places),
  );
  const parts = [
    part(document.getElementById("meta"), headPart, metaView),
    part(places.situation, ({ does, waits, toDo, notes }) => ({ does, waits, toDo, notes }), situationView),
    part(places.approval, ({ approval, name }) => ({ approval, name }), (values) => approvalView(key, look, values)),
    part(places.actions, ({ actions, report, name }) => ({ actions, report, name }), (values) => actionsView(key, look, values)),
    part(places.findings, ({ findings, best }) => ({ findings, best }), findingsView),
    part(places.stages, ({ fetch, iterations, export: last }) => ({ fetch, iterations, export: last }), stagesView),
    part(places.events, ({ events }) => events, eventsView),
    part(places.conditions, ({ conditions }) => conditions, conditionsView),
    part(places.places, ({ files, commands, configuration }) => ({ files, commands, configuration }), placesView),
  ];

  async function look() {
    const text = await guarded(() => ask("/api/run", { key }));
    if (text === null || !places.situation.isConnected) return;
    const data = JSON.parse(text);
    setTitle(data.name);
    places.situation.parentElement.className = `notice edge-${data.tone}`;
    parts.forEach((update) => update(data));
    Object.entries(charts).forEach(([name, container]) => {
      const empty = data.charts[name].length === 0 && name !== "worked";
      container.closest("section").hidden = empty;
      contents.querySelector(`[data-section=${name}]`).hidden = empty;
      updateCharts(container, data.charts[name]);
    });
    logs.offer(data);
  }

  const stop = poll(look);
  return () => {
    stop();
    logs.stop();
    forgetCharts();
    contents.remove();
  };
}
