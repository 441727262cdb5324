"use strict";
(() => {
  // Text of the subject only ever becomes a text node: nothing on this page is parsed as markup.
  const PER_PAGE = 25, FIRST_EXEMPLARS = 5;
  const byId = (id) => document.getElementById(id);
  const { per_chunk: PER_CHUNK, units: index } = JSON.parse(byId("index").textContent);
  const chunkTexts = document.querySelectorAll("script.chunk");
  const chunks = new Map();
  const [NAME, LAYER, TOLD, HOLDS, SCORE, FLOOR, DENSITY, SENSES] = [0, 1, 2, 3, 4, 5, 6, 7];
  const haystack = index.map((unit) => `${unit[NAME]} ${unit[TOLD]} ${unit[SENSES]}`.toLowerCase());
  const rowOf = new Map(index.map((unit, row) => [unit[NAME], row]));
  let found = [], page = 0;

  function details(row) {
    const which = Math.floor(row / PER_CHUNK);
    if (!chunks.has(which)) {
      if (chunks.size > 12) chunks.delete(chunks.keys().next().value);
      chunks.set(which, JSON.parse(chunkTexts[which].textContent));
    }
    return chunks.get(which)[row % PER_CHUNK];
  }

  function make(tag, name, text) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function drawn(tag, attributes) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  const two = (value) => value.toFixed(2).replace("-", "\u2212");
  const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;

  function bar(measured) {
    const [low, high] = measured.unit === "fraction" ? [0.2, 1] : [-0.2, 1];
    const at = (value) => `${Math.max(0, Math.min(100, (100 * (value - low)) / (high - low)))}%`;
    const plot = drawn("svg", { role: "img", "aria-label": `${measured.metric} ${two(measured.value)}, floor ${two(measured.baseline)}` });
    plot.append(
      drawn("line", { class: "axis", x1: "0", x2: "100%", y1: "11", y2: "11" }),
      drawn("line", { class: "axis", x1: at(0.5), x2: at(0.5), y1: "4", y2: "18" }),
      drawn("line", { class: "floor", x1: at(measured.baseline), x2: at(measured.baseline), y1: "2", y2: "20" }),
      drawn("line", { class: "whisker", x1: at(measured.ci95[0]), x2: at(measured.ci95[1]), y1: "11", y2: "11" }),
      drawn("circle", { class: "mark", cx: at(measured.value), cy: "11", r: "4.5" }),
    );
    return plot;
  }

  function score(measured) {
    const line = make("div", "score");
    const said = make("span");
    said.append(
      `${measured.metric} `, make("b", "", two(measured.value)),
      ` [${two(measured.ci95[0])}, ${two(measured.ci95[1])}], n = ${measured.n}` +
        (measured.n_failed ? ` (${measured.n_failed} failed)` : "") + ", ",
      make("span", "floor", `floor ${two(measured.baseline)}`),
    );
    line.append(bar(measured), said);
    return line;
  }

  function exemplar([activation, peak, tokens, strengths]) {
    const item = make("li");
    const text = make("span", "tokens");
    tokens.forEach((token, at) => {
      const strength = Number(strengths[at]);
      const shade = strength > 0 ? `s${strength}` : "";
      text.append(make("span", at === peak ? `${shade} peak` : shade, token));
    });
    item.append(make("span", "activation", activation), text);
    return item;
  }

  function exemplars(listed) {
    const shown = make("ol", "exemplars");
    shown.append(...listed.slice(0, FIRST_EXEMPLARS).map(exemplar));
    if (listed.length <= FIRST_EXEMPLARS) return [shown];
    const more = make("details", "more");
    more.append(make("summary", "", `${listed.length - FIRST_EXEMPLARS} more`));
    more.addEventListener("toggle", () => {
      if (more.childElementCount > 1) return;
      const rest = make("ol", "exemplars");
      rest.append(...listed.slice(FIRST_EXEMPLARS).map(exemplar));
      more.append(rest);
    });
    return [shown, more];
  }

  function picture(images) {
    const figure = make("figure", "images");
    if (images.uri) {
      const image = make("img");
      image.alt = "images at which the unit is most active";
      image.loading = "lazy";
      image.src = images.uri;
      figure.append(image);
    }
    figure.append(make("figcaption", "", images.note));
    return figure;
  }

  function senses(listed) {
    const list = make("ul", "senses");
    for (const sense of listed) {
      const item = make("li");
      const own = sense.score === null ? "too rare to score" : `${two(sense.score)}` + (sense.floor === null ? "" : `, floor ${two(sense.floor)}`) + (sense.holds === false ? ": not shown to hold" : "");
      item.append(make("span", "share", percent(sense.share)), make("span", "", sense.caption), make("span", "own", own));
      list.append(item);
    }
    return list;
  }

  function figures(measured) {
    const more = make("details", "more");
    more.append(make("summary", "", "all scores and controls"));
    more.addEventListener("toggle", () => {
      if (more.childElementCount > 1) return;
      const table = make("table"), head = make("thead"), row = make("tr"), body = make("tbody");
      row.append(...["score", "value", "95% interval", "control", "n"].map((text) => make("th", "", text)));
      head.append(row);
      for (const each of measured) {
        const line = make("tr");
        line.append(
          make("td", "", each.metric), make("td", "figure", `${two(each.value)}${each.unit === "fraction" ? "" : ` ${each.unit}`}`),
          make("td", "figure", `${two(each.ci95[0])} to ${two(each.ci95[1])}`),
          make("td", "", `${two(each.baseline)} (${each.control})`),
          make("td", "figure", `${each.n}${each.n_failed ? ` (${each.n_failed} failed)` : ""}`),
        );
        body.append(line);
      }
      table.append(head, body);
      const wide = make("div", "wide");
      wide.append(table);
      more.append(wide);
    });
    return more;
  }

  function card(row) {
    const unit = index[row], more = details(row);
    const article = make("article", unit[HOLDS] ? "unit" : "unit silent");
    const head = make("div", "head"), name = make("a", "name", unit[NAME]);
    name.href = `#${encodeURIComponent(unit[NAME])}`;
    const facts = [];
    if (unit[DENSITY] !== null) facts.push(`active at ${percent(unit[DENSITY])} of positions`);
    if (more.proposer) facts.push(`caption by ${more.proposer}`);
    head.append(name, make("span", "facts", facts.join(" · ")));
    article.append(head, make("h2", "", unit[HOLDS] ? unit[TOLD] : more.reason || "no caption beats its floor"));
    if (!unit[HOLDS] && unit[TOLD]) article.append(make("p", "rejected", `best candidate, rejected: ${unit[TOLD]}`));
    if (more.measured.length) article.append(score(more.measured[0]));
    if (more.senses.length > 1) article.append(senses(more.senses));
    if (more.images) article.append(picture(more.images));
    if (more.exemplars.length) article.append(...exemplars(more.exemplars));
    if (more.measured.length > 1) article.append(figures(more.measured));
    return article;
  }

  const orders = {
    order: () => 0,
    score: (a, b) => (index[b][SCORE] ?? -2) - (index[a][SCORE] ?? -2),
    gain: (a, b) => gain(index[b]) - gain(index[a]),
    density: (a, b) => (index[b][DENSITY] ?? -1) - (index[a][DENSITY] ?? -1),
    caption: (a, b) => collator.compare(index[a][TOLD] || "\uffff", index[b][TOLD] || "\uffff"),
  };
  const collator = new Intl.Collator("en");
  const gain = (unit) => (unit[SCORE] === null ? -2 : unit[SCORE] - unit[FLOOR]);

  function choose() {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const layer = byId("layer").value, show = byId("show").value;
    found = [];
    index.forEach((unit, row) => {
      if (layer !== "" && String(unit[LAYER]) !== layer) return;
      if (show !== "" && (show === "captioned") !== Boolean(unit[HOLDS])) return;
      if (words.every((word) => haystack[row].includes(word))) found.push(row);
    });
    const sort = byId("sort").value;
    if (sort !== "order") found.sort(orders[sort]);
    page = 0;
    render();
  }

  function render() {
    const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
    page = Math.max(0, Math.min(page, pages - 1));
    const rows = found.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
    const list = byId("units");
    list.replaceChildren(...rows.map(card));
    if (!rows.length) list.append(make("p", "nothing", "No unit fits."));
    for (const pager of document.querySelectorAll(".pager")) {
      pager.hidden = false;
      pager.querySelector(".count").textContent = found.length === 1 ? "1 unit" : `${found.length} units`;
      pager.querySelector(".place").textContent = `${page + 1} / ${pages}`;
      pager.querySelector(".back").disabled = page === 0;
      pager.querySelector(".on").disabled = page === pages - 1;
    }
  }

  function turn(by) {
    page += by;
    render();
    byId("choose").scrollIntoView();
  }

  function follow() {
    const name = decodeURIComponent(location.hash.slice(1));
    if (!rowOf.has(name)) return;
    byId("choose").reset();
    choose();
    found = [rowOf.get(name)];
    byId("search").value = name;
    render();
  }

  let waiting = 0;
  byId("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(choose, 120);
  });
  for (const id of ["layer", "show", "sort"]) byId(id).addEventListener("change", choose);
  byId("choose").addEventListener("submit", (event) => { event.preventDefault(); choose(); });
  for (const button of document.querySelectorAll(".back")) button.addEventListener("click", () => turn(-1));
  for (const button of document.querySelectorAll(".on")) button.addEventListener("click", () => turn(1));
  window.addEventListener("hashchange", follow);
  byId("choose").hidden = false;
  choose();
  follow();
})();
