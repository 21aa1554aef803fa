// Heat maps of an answer: over the image for one label, or a grid of all labels.

import { complain, element, find, percent, say, sorted } from "./elements.js";
import { heatMap } from "./server.js";

export function offerMaps(made, model, answer, item) {
  const choice = find(".heat-label", made);
  for (const label of model.labels) choice.append(new Option(label, label));
  const [[top]] = sorted(answer.scene);
  if (model.labels.includes(top)) choice.value = top;
  offerOne(made, model, item, choice);
  find(".all-maps", made).addEventListener("click", () => showAll(made, model, answer, item));
}

function offerOne(made, model, item, choice) {
  const button = find(".heat", made);
  const image = find(".picture", made);
  const isPressed = () => button.getAttribute("aria-pressed") === "true";

  async function put() {
    const label = choice.value;
    if (button.getAttribute("aria-busy") === "true") return;
    button.setAttribute("aria-busy", "true"); // not disabled: that would take the keyboard's focus away
    try {
      say(`Drawing the heat map for ${label} …`);
      const url = await heatMap(model, item, label);
      if (!made.isConnected) return; // another image has taken its place
      complain("");
      image.src = url;
      image.alt = `${item.name}, with the areas that support ${label} in bright colours`;
      find(".frame", made).hidden = false;
      button.setAttribute("aria-pressed", "true");
      say(`Heat map of ${model.name}: bright areas support ${label}.`);
    } catch (failure) {
      if (made.isConnected) complain(failure.message);
    }
    button.setAttribute("aria-busy", "false");
    if (choice.value !== label) put(); // another one was chosen meanwhile
  }

  button.addEventListener("click", () => {
    if (!isPressed()) {
      put();
      return;
    }
    image.src = item.url;
    image.alt = item.name;
    button.setAttribute("aria-pressed", "false");
    say("The heat map is hidden.");
  });
  choice.addEventListener("change", () => { if (isPressed()) put(); });
}

async function showAll(made, model, answer, item) {
  const button = find(".all-maps", made);
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  find(".maps", made).replaceChildren();
  const labels = sorted(answer.scene).map(([label]) => label).filter((label) => model.labels.includes(label));
  try {
    for (const [i, label] of labels.entries()) {
      say(`Drawing heat map ${i + 1} of ${labels.length} …`);
      const url = await heatMap(model, item, label);
      if (!made.isConnected) return;
      find(".maps", made).append(figure(model, answer, item, label, url));
    }
    say(`Heat maps of ${model.name} for all ${labels.length} labels.`);
  } catch (failure) {
    if (made.isConnected) complain(failure.message);
  }
  button.setAttribute("aria-busy", "false");
}

function figure(model, answer, item, label, url) {
  const made = element("figure");
  const image = element("img");
  image.src = url;
  image.alt = `${item.name}, with the areas that support ${label} in bright colours`;
  const value = answer.scene[label];
  const caption = element("figcaption", `${label} ${model.task === "affect" ? value.toFixed(1) : percent(value)} `);
  const link = element("a", "save");
  link.href = url;
  link.download = `${item.name.replace(/\.[^.]*$/, "")}-${label}.png`;
  link.setAttribute("aria-label", `Save the heat map for ${label}`);
  caption.append(link);
  made.append(image, caption);
  return made;
}
