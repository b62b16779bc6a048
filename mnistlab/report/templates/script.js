"use strict";
// Sorting, finding and live charts. Without it the page has everything but these.

for (const table of document.querySelectorAll("table.ranking")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const key = (row, i) => row.cells[i].dataset.sort ?? row.cells[i].textContent;
  const compare = (i, numeric, sign) => (a, b) => {
    const x = key(a, i), y = key(b, i);
    if (x === "" || y === "") return (x === "") - (y === "");  // what has no value comes last, both ways
    return sign * (numeric ? x - y : x.localeCompare(y, "en", {numeric: true}));
  };
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    head.setAttribute("aria-sort", i === 0 ? "ascending" : "none");
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const numeric = rows.some(row => row.cells[i].dataset.sort !== undefined);
      body.append(...rows.slice().sort(compare(i, numeric, up ? 1 : -1)));
    });
  });

  const tools = table.closest("section").querySelector(".tools");
  const find = tools.querySelector(".find"), state = tools.querySelector(".state"), count = tools.querySelector(".count");
  const sift = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(words.every(word => text.includes(word)) && (!state.value || row.dataset.state === state.value));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length} trials`;
  };
  find.addEventListener("input", sift);
  state.addEventListener("change", sift);
  tools.hidden = false;
  sift();
}

// A link to a trial opens its record.
const open = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", open);
open();

// On paper every record and every table of numbers is there.
const closed = [];
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details.numbers:not([open])")) { one.open = true; closed.push(one); }
});
addEventListener("afterprint", () => { for (const one of closed.splice(0)) one.open = false; });

// The still picture of a chart makes room for the live one when it comes into view. No eval: `ast` interprets.
const alive = figure => {
  const spec = JSON.parse(figure.querySelector("script.spec").textContent), plot = figure.querySelector(".plot");
  const live = document.createElement("div"), hidden = document.createElement("div");
  hidden.setAttribute("aria-hidden", "true");  // the words are the plot's own
  hidden.append(live);
  const options = {mode: "vega-lite", renderer: "svg", ast: true, actions: false, defaultStyle: false,
                   tooltip: {disableDefaultStyle: true}};
  return vegaEmbed(live, spec, options).then(result => {
    plot.replaceChildren(hidden);
    const anchors = figure.closest("article").id;
    result.view.addEventListener("click", (_, item) => {
      const trial = item && item.datum && item.datum.trial;
      const link = trial && [...document.querySelectorAll(`#${anchors} table.ranking th a`)].find(a => a.textContent === trial);
      if (link) location.hash = link.hash;
    });
    figure.classList.add("live");
  });
};
if (typeof vegaEmbed === "function") {
  const seen = new IntersectionObserver(entries => {
    for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); alive(entry.target); }
  }, {rootMargin: "400px"});
  for (const spec of document.querySelectorAll("script.spec")) seen.observe(spec.closest("figure"));
}
