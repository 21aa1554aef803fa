"use strict";
// Filters, order, selection and download of the gallery. Without this script, the page shows all images.
const { header, images } = JSON.parse(document.getElementById("images").textContent);
const form = document.getElementById("filters");
const list = document.getElementById("tiles");
const order = document.getElementById("order");
const tiles = [...list.children];
const boxes = tiles.map((tile) => tile.querySelector("input"));

// Each filter by the name of its field: does an image fit the field's value?
const fits = {
  top: (image, value) => image.top === value,
  people: (image, value) => image.people !== null && Math.min(image.people, 3) === Number(value),
  unfamiliar: (image, value) => image.unfamiliar === (value === "yes"),
  date_from: (image, value) => image.taken !== null && image.taken >= value,
  date_to: (image, value) => image.taken !== null && image.taken <= value,
};
for (const name of ["valence", "arousal"]) {
  fits[`${name}_from`] = (image, value) => image.values[name] >= Number(value);
  fits[`${name}_to`] = (image, value) => image.values[name] <= Number(value);
}

const isShown = (index) => !tiles[index].hidden;
const isSelected = (index) => boxes[index].checked;

function indicesWhere(condition) {
  return [...images.keys()].filter(condition);
}

// The selection, or all images that are shown if nothing is selected.
function chosen() {
  const selected = indicesWhere(isSelected);
  return selected.length ? selected : indicesWhere(isShown);
}

function describe() {
  const shown = indicesWhere(isShown).length;
  const selected = indicesWhere(isSelected).length;
  document.getElementById("shown").textContent = `${shown} of ${images.length} ${images.length === 1 ? "image" : "images"} shown, ${selected} selected`;
  document.getElementById("clear").disabled = selected === 0;
  document.getElementById("select").disabled = shown === 0;
  document.getElementById("nothing").hidden = shown > 0;
  const count = chosen().length;
  for (const [id, words] of [["csv", `Save CSV (${count})`], ["paths", `Save paths (${count})`]]) {
    const button = document.getElementById(id);
    button.textContent = words;
    button.disabled = count === 0;
  }
}

function filter() {
  const conditions = [...new FormData(form)].filter(([, value]) => value !== "");
  images.forEach((image, index) => {
    tiles[index].hidden = !conditions.every(([name, value]) => fits[name](image, value));
  });
  describe();
}

function sort() {
  const indices = [...images.keys()];
  if (order.value) {
    const sign = order.selectedOptions[0].dataset.sign ?? 1;
    indices.sort((a, b) => sign * (images[b].values[order.value] - images[a].values[order.value]));
  }
  list.append(...indices.map((index) => tiles[index]));
}

function select(indices, isChecked) {
  for (const index of indices) {
    boxes[index].checked = isChecked;
  }
  describe();
}

function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// The images of a cell of the map.
function showMood({ valence, arousal, step }) {
  form.reset();
  for (const [name, low] of [["valence", valence], ["arousal", arousal]]) {
    form.elements[`${name}_from`].value = low;
    form.elements[`${name}_to`].value = Number(low) + Number(step);
  }
  filter();
  document.getElementById("gallery").scrollIntoView();
}

form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
// The fields are empty after the event.
form.addEventListener("reset", () => setTimeout(() => { filter(); sort(); }));
order.addEventListener("input", sort);
list.addEventListener("change", describe);
document.getElementById("select").addEventListener("click", () => select(indicesWhere(isShown), true));
document.getElementById("clear").addEventListener("click", () => select(images.keys(), false));
document.getElementById("csv").addEventListener("click", () => {
  save("images.csv", "text/csv", [header, ...chosen().map((index) => images[index].line)].join(""));
});
document.getElementById("paths").addEventListener("click", () => {
  save("images.txt", "text/plain", chosen().map((index) => `${images[index].path}\n`).join(""));
});
for (const moods of document.querySelectorAll(".moods")) {
  moods.classList.add("scripted");
  moods.addEventListener("click", (event) => {
    const cell = event.target.closest("[data-valence]");
    if (cell) showMood(cell.dataset);
  });
}
for (const part of document.querySelectorAll("#filters, #tools, .pick, .scripted[hidden]")) part.hidden = false;
filter();
