// The example on an empty page: an image that comes with it, and the built-in model's answer.

import { bars } from "./answer.js";
import { complain, find, sorted } from "./elements.js";
import { legend } from "./maps.js";

const fileOf = (name) => fetch(new URL(name, import.meta.url));

// take: is given the image, as if it had been chosen.
export async function drawExample(take) {
  const place = find("#example");
  find("#try").addEventListener("click", async () => {
    try {
      const image = await (await fileOf("example.jpg")).blob();
      await take([{ file: new File([image], "cat.jpg", { type: "image/jpeg" }), name: "cat.jpg" }]);
    } catch (failure) {
      complain(failure.message);
    }
  });
  const { model, answer, share } = await (await fileOf("example.json")).json();
  find(".answer", place).append(...bars(model, answer, share));
  legend(find(".legend", place), `most support for ${sorted(answer.scene)[0][0]}`);
}
