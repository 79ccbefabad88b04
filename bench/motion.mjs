// Full motion: which frames of bench/motion a viewer shows, whole or torn, and how old they are.
import { readFileSync } from "node:fs";
import { quantile } from "./report.mjs";

// The layout of the cells, as bench/motion/film.go has it.
const cell = 16;
const columns = 4;
const lines = 5;
const inset = 16;

/** Where the five blocks of cells lie in a picture of this size. */
export function places(width, height) {
  const right = width - inset - cell * columns;
  const bottom = height - inset - cell * lines;
  const middle = [Math.trunc(right / 2), Math.trunc(bottom / 2)];
  return [[inset, inset], [right, inset], middle, [inset, bottom], [right, bottom]];
}

/** What the probe needs to know to read the cells. */
export function layout(width, height) {
  return { size: [width, height], places: places(width, height), cell, columns, lines };
}

/** The number in twenty cells, the last one first; undefined where a cell is neither black nor white or the checksum is wrong. */
export function decode(bits) {
  if (bits.includes("2")) {
    return undefined;
  }
  const value = Number.parseInt(bits, 2);
  const number = value & 0xffff;
  const sum = (number ^ (number >> 4) ^ (number >> 8) ^ (number >> 12) ^ 0xf) & 0xf;
  return value >> 16 === sum ? number : undefined;
}

/** When each frame was sent, in milliseconds since 1970, from the program's own log. */
export function sent(log) {
  const times = new Map();
  for (const line of readFileSync(log, "utf8").trim().split("\n")) {
    const [number, micros] = line.split(" ").map(Number);
    times.set(number, micros / 1000);
  }
  return times;
}

/**
 * Sums up what was read in every animation frame: whole frames shown a second, the share of time in which the picture was torn
 * (not one and the same number at all places), and the age of what stood on the screen, in milliseconds; a torn picture is as old
 * as its oldest part. clock is what to add to the page's times.
 */
export function summary(samples, times, clock) {
  const read = samples.map(([time, ...bits]) => ({
    time: time + clock,
    numbers: bits.map(decode),
  }));
  const seconds = (read.at(-1).time - read[0].time) / 1000;
  const whole = new Set();
  let torn = 0;
  let unread = 0;
  const ages = [];
  const first = [];
  for (let i = 0; i + 1 < read.length; i++) {
    const { time, numbers } = read[i];
    const duration = read[i + 1].time - time;
    const known = numbers.filter((number) => number !== undefined);
    if (known.some((number) => !times.has(number))) {
      throw new Error(`a frame was read that was never sent: ${numbers.join(" ")}`);
    }
    const [number] = numbers;
    const isWhole = known.length === numbers.length && known.every((other) => other === number);
    if (known.length < numbers.length) {
      unread += duration;
    }
    if (!isWhole) {
      torn += duration;
    } else if (!whole.has(number)) {
      whole.add(number);
      first.push(time - times.get(number));
    }
    if (known.length > 0) {
      ages.push(time - times.get(Math.min(...known)));
    }
  }
  const made = [...times.values()].filter((t) => t >= read[0].time && t <= read.at(-1).time).length;
  return {
    seconds,
    wholePerSecond: whole.size / seconds,
    madePerSecond: made / seconds,
    torn: torn / 1000 / seconds,
    unread: unread / 1000 / seconds,
    age: ages.length > 0 ? [0.5, 0.95].map((share) => quantile(ages, share)) : undefined,
    firstAge: first.length > 0 ? [0.5, 0.95].map((share) => quantile(first, share)) : undefined,
    looksPerSecond: read.length / seconds,
  };
}
