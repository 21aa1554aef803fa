// Whatever a client or the server sends is put into the page as text, never as HTML.

export const find = (selector, within = document) => within.querySelector(selector);

export function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function say(text) { find("#status").textContent = text; }

export function complain(text) { find("#error").textContent = text; }

export function percent(value) { return `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`; }

// [label, value] pairs, the largest first.
export function sorted(values) { return Object.entries(values).sort((a, b) => b[1] - a[1]); }

// Gives a file to whoever looks at the page.
export function download(url, name) {
  const link = element("a");
  link.href = url;
  link.download = name;
  link.click();
}
