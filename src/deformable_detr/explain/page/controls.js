// The choices beside the picture: levels, heads, objects.
function addChoices(id, texts, chosen) {
  texts.forEach((text, index) => {
    const box = document.createElement("input");
    Object.assign(box, { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(index);
      else chosen.delete(index);
      show();
    });
    const label = document.createElement("label");
    label.append(box);
    const key = document.createElement("span");
    key.className = "key";
    key.style.background = colourOf(index);
    label.append(key, text);
    byId(id).append(label);
  });
}

function addObjects() {
  const found = new Map(data.detections.map((each) => [each.query, each]));
  data.queries.index.forEach((query, index) => {
    const button = document.createElement("button");
    const last = data.layers[data.layers.length - 1];
    const label = data.classes[row(last.labels, index)[0]];
    button.type = "button";
    button.dataset.row = index;
    const score = row(last.scores, index)[0];
    const name = document.createElement("bdi");
    name.textContent = label;
    const [bar, number] = ["bar", "score"].map((part) => {
      const made = document.createElement("span");
      made.className = part;
      return made;
    });
    bar.style.setProperty("--score", score);
    number.textContent = score.toFixed(3);
    button.append(name, bar, number);
    button.title = `query ${query}`;
    button.addEventListener("click", () => {
      state.row = index;
      chooseMode("object");
      show();
    });
    if (found.has(query)) byId("others").before(button);
    else byId("others").append(button);
    byId("compared").append(new Option(`${label} ${score.toFixed(3)} (query ${query})`, index));
  });
  const others = byId("others").querySelectorAll("button").length;
  byId("others").hidden = !others;
  byId("others").open = data.detections.length === 0;
  byId("others").querySelector("summary").textContent = `${others} more queries, not among the answers`;
}
