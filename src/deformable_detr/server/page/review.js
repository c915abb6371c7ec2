// The page of a review: filters, the ranking, and the image that is shown.
import { fetchWithToken } from "./asking.js";
import { compare } from "./comparing.js";
import { worstFirst } from "./ranking.js";
import { byId, element, say } from "./state.js";

const LISTED = 300;     // images of the ranking; the filters find the others

let data = null;
let ranking = [];
let shown = 0;          // its place in the ranking
let address = null;

async function begin() {
  try {
    data = await (await fetchWithToken("/review/data.json")).json();
  } catch (error) {
    say(error.message);
    return;
  }
  data.names.forEach((name, label) => byId("class").append(new Option(name, label)));
  for (const kind of Object.keys(data.kinds)) byId("kind").append(new Option(kind, kind));
  byId("threshold").min = data.leastScore;
  byId("threshold").value = data.threshold;
  byId("work").hidden = false;
  for (const id of ["class", "size", "kind", "threshold"]) byId(id).addEventListener("input", rank);
  byId("previous").addEventListener("click", () => turnTo(shown - 1));
  byId("next").addEventListener("click", () => turnTo(shown + 1));
  document.addEventListener("keydown", turnByKey);
  new ResizeObserver(() => draw()).observe(byId("truth"));
  rank();
}

const filters = () => ({ threshold: Number(byId("threshold").value),
  label: byId("class").value === "" ? null : Number(byId("class").value), size: byId("size").value,
  kind: byId("kind").value });

function rank() {
  byId("threshold-value").textContent = Number(byId("threshold").value).toFixed(2);
  byId("meaning").textContent = data.kinds[byId("kind").value] ?? "";
  const before = ranking[shown]?.index;
  ranking = worstFirst(data, filters());
  say(`${ranking.length} of ${data.images.length} images`);
  byId("ranking").replaceChildren(...ranking.slice(0, LISTED).map((each, place) => element("li", {},
    entryOf(each, place))));
  turnTo(Math.max(0, ranking.findIndex(({ index }) => index === before)));
}

function entryOf({ index, right, wrong, missed }, place) {
  const button = element("button", { type: "button" }, element("bdi", { textContent: data.images[index].file }),
    element("span", { textContent: `${right} · ${wrong} · ${missed}` }));
  button.setAttribute("aria-label", `${data.images[index].file}: ${right} right, ${wrong} wrong, ${missed} missed`);
  button.addEventListener("click", () => turnTo(place));
  return button;
}

async function turnTo(place) {
  shown = Math.max(0, Math.min(place, ranking.length - 1));
  byId("previous").disabled = shown === 0;
  byId("next").disabled = shown >= ranking.length - 1;
  [...byId("ranking").querySelectorAll("button")].forEach((button, index) =>
    button.setAttribute("aria-current", String(index === shown)));
  draw();
  const chosen = ranking[shown]?.index;
  if (chosen === undefined || address?.index === chosen) return;
  try {
    const picture = await (await fetchWithToken(`/review/images/${chosen}`)).blob();
    if (ranking[shown]?.index !== chosen) return;
    if (address) URL.revokeObjectURL(address.url);
    address = { index: chosen, url: URL.createObjectURL(picture) };
    draw();
  } catch (error) {
    say(error.message);
  }
}

function draw() {
  const chosen = ranking[shown];
  document.querySelector(".stage").hidden = !chosen;
  if (chosen) compare(data, data.images[chosen.index], chosen, address?.index === chosen.index ? address.url : null);
}

function turnByKey(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const isElsewhere = event.target.closest?.("input, select, dialog") || event.altKey || event.ctrlKey || event.metaKey;
  if (!step || isElsewhere) return;
  event.preventDefault();
  turnTo(shown + step);
}

begin();
