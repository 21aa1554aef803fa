// Heat maps of an answer: over the image for one label, or a grid of all labels.

import { complain, element, find, percent, say, sorted } from "./elements.js";
import { heatMap } from "./server.js";

// What the colours mean.  most: what the brightest stands for.
export function legend(place, most) {
  place.replaceChildren("no support", element("span", undefined, "scale"), `${most}; dimmed: not looked at`);
  place.hidden = false;
}

const named = (model) => (model.name === "embedded" ? "the built-in model" : model.name);

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
      const { url } = await heatMap(model, item, label);
      if (!made.isConnected) return; // another image has taken its place
      complain("");
      image.src = url;
      image.alt = `${item.name}, with the areas that support ${label} in bright colours`;
      find(".frame", made).hidden = false;
      legend(find("figure + .legend", made), `most support for ${label}`);
      button.setAttribute("aria-pressed", "true");
      say(`Heat map of ${named(model)}: bright areas support ${label}.`);
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
    find("figure + .legend", made).hidden = true;
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
  find(".maps-part", made).hidden = false;
  const labels = sorted(answer.scene).map(([label]) => label).filter((label) => model.labels.includes(label));
  const drawn = []; // { label, shown, scale }
  let scale; // evidence of the brightest colour: the most that any label has so far
  let most = "";
  try {
    for (const [i, label] of labels.entries()) {
      say(`Drawing heat map ${i + 1} of ${labels.length} …`);
      const { url, evidence } = await heatMap(model, item, label, scale);
      if (!made.isConnected) return;
      const shown = figure(model, answer, item, label, url);
      find(".maps", made).append(shown);
      drawn.push({ label, shown, scale: scale || evidence });
      if (evidence > (scale || 0)) [scale, most] = [evidence, label];
      legend(find(".maps-part .legend", made), `most support that any label has${most && ` (${most})`}`);
    }
    for (const each of drawn.filter((one) => one.scale !== (scale || 0))) { // drawn before a label with more
      const { url } = await heatMap(model, item, each.label, scale);
      if (!made.isConnected) return;
      find("img", each.shown).src = url;
      find("a", each.shown).href = url;
    }
    say(`Heat maps of ${named(model)} for all ${labels.length} labels.`);
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
