// Logs that follow: server-sent events while the section is open and the page can be seen.

const keptLines = 3000;

function logSection(key) {
  const choice = element("select", {}, element("option", { value: "" }, "latest, and what follows"));
  const box = element("div", { class: "log", tabindex: "0", role: "log", "aria-live": "off", "aria-label": "Lines of the log" });
  const state = element("p", { class: "status", role: "status" });
  const details = element(
    "details",
    { id: "logs" },
    element("summary", {}, element("h2", {}, "Logs")),
    element("div", { class: "controls" }, element("label", {}, element("span", {}, "Log of"), choice)),
    state,
    box,
  );
  let stream = null;
  let heading = "";

  function add(lines) {
    const follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    for (const line of lines) {
      if (line.heading !== heading) {
        heading = line.heading;
        box.append(element("div", { class: "log-heading" }, heading));
      }
      box.append(element("div", {}, line.prefix ? element("span", { class: "log-prefix" }, line.prefix) : null, line.text || " "));
    }
    while (box.childElementCount > keptLines) box.firstElementChild.remove();
    if (follows) box.scrollTop = box.scrollHeight;
  }

  function close(words) {
    stream?.close();
    stream = null;
    state.textContent = words;
  }

  function open() {
    close("Reads the log ...");
    box.replaceChildren();
    heading = "";
    const [stage = "", iteration = ""] = choice.value.split(" ");
    stream = new EventSource(`/api/logs?${new URLSearchParams({ key, stage, iteration })}`);
    stream.onopen = () => (state.textContent = "Follows; new lines appear below.");
    stream.addEventListener("lines", (event) => add(JSON.parse(event.data)));
    stream.addEventListener("problem", (event) => close(JSON.parse(event.data)));
    stream.addEventListener("end", () => stream && close("The log has ended."));
    stream.onerror = () => stream?.readyState === EventSource.CLOSED && close("The server does not answer.");
  }

  const refresh = () => {
    if (details.open && !document.hidden) open();
    else if (stream) close("");
  };
  details.addEventListener("toggle", refresh);
  choice.addEventListener("change", () => details.open && open());
  document.addEventListener("visibilitychange", refresh);

  return {
    view: details,
    offer(data) {
      const found = data.iterations.flatMap(({ index, stages }) => [...stages].reverse().map(({ stage }) => [`${stage} ${index}`, `${stage} of iteration ${index}`]));
      if (data.export) found.unshift(["export", "export"]);
      if (data.fetch) found.push(["fetch", "fetch"]);
      const known = new Set([...choice.options].map((option) => option.value));
      for (const [value, text] of found.filter(([value]) => !known.has(value))) choice.append(element("option", { value }, text));
    },
    stop() {
      document.removeEventListener("visibilitychange", refresh);
      close("");
    },
  };
}
