// The report's plots: the chart of each place, drawn when the place comes near.

function draw(place) {
  return drawChart(place, reportData.charts[place.dataset.chart], reportData.runs.length > 1 ? "group" : "stack");
}

/** Add the plotting library to the page; the page's policy knows its digest. */
async function loadPlotly() {
  const script = document.createElement("script");
  script.textContent = await unpack("plotly");
  document.head.append(script);
}

async function startCharts() {
  const places = [...document.querySelectorAll("[data-chart]")];
  if (places.length === 0) return;
  await loadPlotly();
  // Plots out of sight are drawn when they come near: a phone shows the first ones sooner.
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((one) => one.isIntersecting)) {
        near.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "800px" },
  );
  places.forEach((place) => near.observe(place));
  themeListeners.push(() => {
    const printing = "printing" in document.documentElement.dataset;
    places.filter((place) => printing || "drawn" in place.dataset).forEach(draw);
  });
}

const chartsReady = startCharts();
