// The tour: each step has a text and sets the view.
/** A step of the guide sets the view. */
function takeStep(button) {
  const words = new URLSearchParams(button.dataset.view);
  const last = (words.get("mode") === "token" ? data.encoder.layers : data.layers).length - 1;
  chooseMode(words.get("mode"));
  state.layer = words.get("layer") === "last" ? last : 0;
  if (words.get("mode") === "token") [state.x, state.y] = row(data.layers[data.layers.length - 1].boxes, state.row);
  byId("heat").checked = words.has("heat");
  byId("heard").checked = words.has("heard");
  show();
  if (words.has("point") && keys.points.length) choosePoint(keys.points[0], keys.query);
}

const steps = [...document.querySelectorAll(".steps button")];

/** Show the text of a step, mark its button, and set the view. */
function goToStep(index) {
  steps.forEach((button, place) => {
    if (place === index) button.setAttribute("aria-current", "step");
    else button.removeAttribute("aria-current");
  });
  [...byId("step-text").children].forEach((text, place) => { text.hidden = place !== index + 1; });
  byId("next-step").textContent = index + 1 < steps.length ? "Next step" : "Start again";
  byId("next-step").dataset.next = (index + 1) % steps.length;
  takeStep(steps[index]);
}

function startGuide() {
  steps.forEach((button, index) => button.addEventListener("click", () => goToStep(index)));
  byId("next-step").addEventListener("click", () => goToStep(Number(byId("next-step").dataset.next ?? 0)));
}
