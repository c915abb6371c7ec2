// A detection in the page of `ddetr explain`, in a frame that cannot reach this one.
import { ask } from "./asking.js";
import { byId, say, shownDetections, state } from "./state.js";

export async function explain(picture, detection) {
  say(`Explaining ${detection.name} in ${picture.name} …`);
  try {
    const lowest = Math.min(state.threshold, detection.score);
    const { page, queries } = await (await ask(`/explain?threshold=${lowest}`, picture.file)).json();
    const query = queries[picture.detections.indexOf(detection)];
    byId("explanation-page").src = `${page}#query=${query}`;
    byId("explanation").showModal();
    say(`${picture.name}: ${shownDetections(picture).length} shown`);
  } catch (error) {
    say(`${picture.name}: ${error.message}`);
  }
}

export function closeExplanations() {
  byId("explanation").addEventListener("close", () => byId("explanation-page").removeAttribute("src"));
}
