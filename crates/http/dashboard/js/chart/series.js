// The points of one sensor as a chart holds them: two sorted columns with a bound, and a break where data is missing.

/** More points than this and the oldest detail has to be asked for again, decimated. */
export const POINT_LIMIT = 12000;
/** A hole of so many usual distances is a gap: no line is drawn over it. */
const GAP_FACTOR = 12;

export class Series {
  constructor() {
    this.load({ timestamps_ms: [], values: [] });
  }

  load({ timestamps_ms: times, values }) {
    this.times = times.slice();
    this.values = values.slice();
    this.revision = (this.revision ?? 0) + 1;
  }

  get length() {
    return this.times.length;
  }

  get full() {
    return this.times.length >= POINT_LIMIT;
  }

  /** Puts a reading in its place by time. One that is there already (the stream resumed) is left out. */
  add(at, value) {
    let place = this.times.length;
    while (place > 0 && this.times[place - 1] > at) place -= 1;
    if (place > 0 && this.times[place - 1] === at && this.values[place - 1] === value) return;
    this.times.splice(place, 0, at);
    this.values.splice(place, 0, value);
  }

  /** Lets go of what a sliding window has left behind. */
  dropBefore(at) {
    let count = 0;
    while (count < this.times.length && this.times[count] < at) count += 1;
    // One point stays, so that the line enters the window from outside.
    if (count > 1) {
      this.times.splice(0, count - 1);
      this.values.splice(0, count - 1);
    }
  }

  /** `[times, values]` with a null inside each gap. */
  drawn() {
    const { times, values } = this;
    if (times.length < 4) return [times, values];
    const limit = GAP_FACTOR * usualDistance(times);
    const drawnTimes = [];
    const drawnValues = [];
    for (let i = 0; i < times.length; i += 1) {
      if (i > 0 && times[i] - times[i - 1] > limit) {
        drawnTimes.push((times[i - 1] + times[i]) / 2);
        drawnValues.push(null);
      }
      drawnTimes.push(times[i]);
      drawnValues.push(values[i]);
    }
    return [drawnTimes, drawnValues];
  }

  /** Index of the point nearest in time, or -1. */
  nearest(at) {
    const { times } = this;
    if (times.length === 0) return -1;
    let low = 0;
    let high = times.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] < at) low = middle + 1;
      else high = middle;
    }
    return low > 0 && at - times[low - 1] < times[low] - at ? low - 1 : low;
  }
}

function usualDistance(times) {
  const distances = [];
  const step = Math.max(1, Math.floor(times.length / 500));
  for (let i = 1; i < times.length; i += step) distances.push(times[i] - times[i - 1]);
  distances.sort((a, b) => a - b);
  // Decimated data has pairs close together; the upper quartile is nearer to the distance of buckets than the median.
  return Math.max(1, distances[Math.floor(distances.length * 0.75)]);
}
