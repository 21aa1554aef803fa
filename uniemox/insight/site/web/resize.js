// The views of an image as uniemox/predict/views.py cuts them: Pillow's bicubic resize, to the bit, and crops.

const RAMPS = [[1.8, 2.4], [2.4, 3.0], [4.4, 5.0]]; // as in uniemox/predict/views.py
const [OLD_LONG, OLD_MAX_SQUARES] = [2, 6]; // of rule "squares"
const PRECISION_BITS = 22; // of Pillow's whole-number weights

function bicubic(x) { // Keys, a = -0.5
  const a = Math.abs(x);
  if (a < 1) return (1.5 * a - 2.5) * a * a + 1;
  return a < 2 ? ((-0.5 * a + 2.5) * a - 4) * a + 2 : 0;
}

// For each output pixel of a side: the first input pixel and the whole-number weights from there.
function weightsOf(length, wanted) {
  const scale = length / wanted;
  const stretch = Math.max(scale, 1);
  const support = 2 * stretch;
  return Array.from({ length: wanted }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(length, Math.trunc(centre + support + 0.5)) - first;
    const weights = Array.from({ length: count }, (__, i) => bicubic((i + first - centre + 0.5) / stretch));
    const sum = weights.reduce((a, b) => a + b, 0);
    const whole = weights.map((w) => Math.trunc((w / sum) * 2 ** PRECISION_BITS + (w < 0 ? -0.5 : 0.5)));
    return { first, whole: Int32Array.from(whole) };
  });
}

function rounded(sum) { return Math.max(0, Math.min(255, (sum + 2 ** (PRECISION_BITS - 1)) >> PRECISION_BITS)); }

// image: { data, width, height }, RGBA.
export function resize(image, width, height) {
  if (image.width === width && image.height === height) return image;
  const narrow = new Uint8ClampedArray(4 * width * image.height);
  weightsOf(image.width, width).forEach(({ first, whole }, x) => {
    for (let y = 0; y < image.height; y += 1) {
      for (let channel = 0; channel < 3; channel += 1) {
        let sum = 0;
        for (let i = 0, at = 4 * (y * image.width + first) + channel; i < whole.length; i += 1, at += 4) sum += whole[i] * image.data[at];
        narrow[4 * (y * width + x) + channel] = rounded(sum);
      }
    }
  });
  const data = new Uint8ClampedArray(4 * width * height);
  weightsOf(image.height, height).forEach(({ first, whole }, y) => {
    for (let at = 0; at < 4 * width; at += 1) {
      let sum = 0;
      for (let i = 0, from = 4 * first * width + at; i < whole.length; i += 1, from += 4 * width) sum += whole[i] * narrow[from];
      data[4 * y * width + at] = rounded(sum);
    }
  });
  return { data, width, height };
}

export function crop(image, left, top, width, height) {
  const data = new Uint8ClampedArray(4 * width * height);
  for (let y = 0; y < height; y += 1) {
    const from = 4 * ((top + y) * image.width + left);
    data.set(image.data.subarray(from, from + 4 * width), 4 * y * width);
  }
  return { data, width, height };
}

export function roundHalfEven(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + (low % 2) : Math.round(value);
}

// The mean colours of count x count cells, as Pillow's box filter.
export function boxMeans({ data, width, height }, count) {
  const cells = [];
  for (let row = 0; row < count; row += 1) {
    for (let column = 0; column < count; column += 1) {
      const [top, bottom] = boxRange(row, count, height);
      const [left, right] = boxRange(column, count, width);
      const sums = [0, 0, 0];
      for (let y = top; y < bottom; y += 1) {
        for (let x = left; x < right; x += 1) {
          for (let channel = 0; channel < 3; channel += 1) sums[channel] += data[4 * (y * width + x) + channel];
        }
      }
      cells.push(sums.map((sum) => Math.round(sum / ((bottom - top) * (right - left)))));
    }
  }
  return cells;
}

// The first px of a cell along one side, and the first one after it.
function boxRange(place, count, length) {
  const scale = length / count;
  const support = Math.max(0.5, scale / 2);
  const middle = (place + 0.5) * scale;
  const first = Math.max(0, Math.trunc(middle - support + 0.5));
  const last = Math.min(length, Math.trunc(middle + support + 0.5));
  return [first, last];
}

// The middle of an image: RGBA of size x size px.
export function sceneView(image, size, cropFraction) {
  const short = Math.floor(size / cropFraction);
  const { width, height } = image;
  const resized = width <= height
    ? resize(image, short, Math.trunc((short * height) / width))
    : resize(image, Math.trunc((short * width) / height), short);
  return crop(resized, roundHalfEven((resized.width - size) / 2), roundHalfEven((resized.height - size) / 2), size, size);
}

// The part of an image that `sceneView` shows: left, top, right, bottom, px.
export function sceneBox(width, height, size, cropFraction) {
  const side = (Math.min(width, height) * size) / Math.floor(size / cropFraction);
  const [left, top] = [(width - side) / 2, (height - side) / 2];
  return [left, top, left + side, top + side];
}

// The squares along a long image, or the image itself: { image, weight, left, top }, px; the weights add up to 1.
export function sceneParts(image, rule) {
  const { width, height } = image;
  const [short, long] = [Math.min(width, height), Math.max(width, height)];
  const places = rule === "blend" ? squarePlaces(long / short) : oldPlaces(long / short);
  if (places.length === 1) return [{ image, weight: 1, left: 0, top: 0 }];
  const total = places.reduce((sum, [, weight]) => sum + weight, 0);
  return places.map(([place, weight]) => {
    const start = roundHalfEven(place * (long - short));
    const [left, top] = width >= height ? [start, 0] : [0, start];
    return { image: crop(image, left, top, short, short), weight: weight / total, left, top };
  });
}

// Places along the image, 0 to 1, and weights: the middle, both ends, then the middles between neighbours.
function squarePlaces(aspect) {
  const places = [[0.5, 1]];
  let steps = 1;
  for (const [low, high] of RAMPS) {
    const weight = Math.min(1, (aspect - low) / (high - low));
    if (weight <= 0) break;
    const added = steps === 1 ? [0, 1] : Array.from({ length: steps }, (_, i) => (2 * i + 1) / (2 * steps));
    places.push(...added.map((place) => [place, weight]));
    steps *= 2;
  }
  return places;
}

function oldPlaces(aspect) {
  if (aspect < OLD_LONG) return [[0.5, 1]];
  const count = Math.min(OLD_MAX_SQUARES, Math.ceil(aspect));
  return Array.from({ length: count }, (_, i) => [i / (count - 1), 1]);
}
