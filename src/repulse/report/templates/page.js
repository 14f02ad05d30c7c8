"use strict";
// Everything here is a help: the page says the same without it.
const make = (name, text, parent) => {
  const element = document.createElement(name);
  element.textContent = text;
  if (parent) parent.append(element);
  return element;
};
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Tables: a click on a heading sorts, a word filters.
const worth = cell => cell.dataset.value === undefined ? NaN : Number(cell.dataset.value);
for (const table of all("table")) {
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  for (const [column, heading] of [...table.tHead.rows[0].cells].entries()) {
    const button = make("button", heading.textContent);
    button.type = "button";
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rank = (a, b) => {
        const [x, y] = [a.cells[column], b.cells[column]], [p, q] = [worth(x), worth(y)];
        if (isNaN(p) !== isNaN(q)) return isNaN(p) ? 1 : -1;
        const order = isNaN(p) ? y.textContent.localeCompare(x.textContent) : q - p;
        return down ? order : -order;
      };
      body.append(...[...body.rows].sort(rank));
    });
  }
}
for (const region of all("[data-filtered]")) {
  const label = make("label", "show models with "), input = make("input", "", label);
  label.className = "filter";
  input.type = "search";
  region.before(label);
  input.addEventListener("input", () => {
    const word = input.value.toLowerCase();
    for (const row of all("tbody tr", region)) row.hidden = !row.textContent.toLowerCase().includes(word);
  });
}

// Curves: the nearest point of each line says its values.
for (const figure of all("figure[data-series]")) {
  const series = JSON.parse(figure.dataset.series), svg = figure.querySelector("svg"), tip = make("div", "", figure);
  tip.className = "tip";
  tip.hidden = true;
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    let best = null;
    for (const [name, points] of series)
      for (const [px, py, text] of points) {
        const far = Math.hypot(px - x, py - y);
        if (far < 24 && (best === null || far < best.far)) best = { far, px, py, said: `${name}, ${text}` };
      }
    tip.hidden = best === null;
    if (best === null) return;
    tip.textContent = best.said;
    tip.style.left = `${Math.min(best.px / scale, box.width - tip.offsetWidth)}px`;
    tip.style.top = `${best.py / scale - tip.offsetHeight - 10}px`;
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
}

// Gallery: a click enlarges.
if (document.querySelector(".triple img")) {
  const dialog = make("dialog", "", document.body), large = make("img", "", dialog);
  dialog.addEventListener("click", () => dialog.close());
  for (const image of all(".triple img")) {
    image.tabIndex = 0;
    const open = () => {
      large.src = image.src;
      large.alt = image.alt;
      dialog.showModal();
    };
    image.addEventListener("click", open);
    image.addEventListener("keydown", event => { if (event.key === "Enter") open(); });
  }
}

// Chapters: one at a time, such as one eps.
const chapters = all(".chapter"), links = all("nav a");
if (links.length > 1) {
  const every = make("a", "all", make("li", "", document.querySelector("nav ul")));
  every.href = "#";
  for (const link of [...links, every])
    link.addEventListener("click", event => {
      event.preventDefault();
      for (const chapter of chapters) chapter.hidden = link !== every && `#${chapter.id}` !== link.getAttribute("href");
      for (const other of [...links, every]) other.toggleAttribute("aria-current", other === link);
    });
}

// A link into what is folded opens it.
const unfold = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let element = target; element; element = element.parentElement) {
    if (element.tagName === "DETAILS") element.open = true;
    if (element.classList.contains("chapter")) element.hidden = false;
  }
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", unfold);
unfold();
