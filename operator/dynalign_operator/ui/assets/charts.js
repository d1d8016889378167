// The plots of a run's page: drawn when they come near, and again when the run has new numbers.

let plotly = null;

/** Load the plotting library once, when the first plot is needed. */
function loadPlotly() {
  plotly ??= new Promise((done, failed) => {
    document.head.append(element("script", { src: "/assets/plotly.js", onload: () => done(), onerror: () => failed(new Error("plotly.js")) }));
  });
  return plotly;
}

const drawn = new Set();
const nearPlots = new IntersectionObserver(
  (entries) => {
    for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
      nearPlots.unobserve(target);
      loadPlotly().then(() => {
        if (!target.isConnected) return;
        drawn.add(target);
        drawChart(target, target.chart);
      });
    }
  },
  { rootMargin: "600px" },
);
themeListeners.push(() => drawn.forEach((place) => drawChart(place, place.chart)));

function estimateText(value, low, high) {
  if (value === undefined || value === null) return "-";
  const text = (one) => (Math.abs(one) >= 1000 ? Math.round(one).toLocaleString("en") : Math.abs(one) < 0.01 && one !== 0 ? one.toPrecision(4) : one.toFixed(3));
  return low === null || high === null ? text(value) : `${text(value)} (${text(low)} to ${text(high)})`;
}

function numbersTable(chart) {
  const iterations = [...new Set(chart.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  const cell = (line, iteration) => {
    const i = line.x.indexOf(iteration);
    return element("td", {}, i < 0 ? "-" : estimateText(line.y[i], line.low[i], line.high[i]));
  };
  const head = element("tr", {}, element("th", { scope: "col" }, "Iteration"), ...chart.lines.map((line) => element("th", { scope: "col" }, line.label || chart.title)));
  const rows = iterations.map((iteration) =>
    element("tr", {}, element("th", { scope: "row" }, String(iteration)), ...chart.lines.map((line) => cell(line, iteration))),
  );
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
}

function newFigure(chart) {
  const place = element("div", { class: "plot", role: "img", "data-plot": chart.title, "aria-label": `Plot: ${chart.title}. The table below holds its numbers.` });
  const numbers = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Numbers of ${chart.title}` });
  const figure = element(
    "figure",
    { class: "chart" },
    element("figcaption", {}, element("h3", {}, chart.title), element("p", {}, chart.text + (chart.unit ? ` Unit: ${chart.unit}.` : ""))),
    place,
    element("details", {}, element("summary", {}, "Numbers", element("span", { class: "visually-hidden" }, ` of ${chart.title}`)), numbers),
  );
  return Object.assign(figure, { place, numbers, known: "" });
}

/** Charts into their container: those that are there change, new ones are added. */
function updateCharts(container, charts) {
  container.figures ??= new Map();
  const figures = charts.map((chart) => {
    if (!container.figures.has(chart.title)) container.figures.set(chart.title, newFigure(chart));
    const figure = container.figures.get(chart.title);
    const known = JSON.stringify(chart);
    if (figure.known !== known) {
      figure.known = known;
      figure.place.chart = chart;
      figure.numbers.replaceChildren(numbersTable(chart));
      if (drawn.has(figure.place)) drawChart(figure.place, chart);
      else nearPlots.observe(figure.place);
    }
    return figure;
  });
  if (figures.length !== container.children.length || figures.some((figure, i) => container.children[i] !== figure)) {
    container.replaceChildren(...figures);
  }
}

/** Forget the plots of a page that is left. */
function forgetCharts() {
  drawn.forEach((place) => Plotly.purge(place));
  drawn.clear();
  nearPlots.disconnect();
}
