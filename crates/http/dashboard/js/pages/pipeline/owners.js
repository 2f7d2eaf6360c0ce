// The colours of owners. One belongs to an owner for as long as the page lives, so that it doesn't change when others
// come and go.
const COLOURS = 8;
const colours = new Map();

export function colourOf(owner) {
  if (!colours.has(owner)) colours.set(owner, colours.size % COLOURS);
  return `var(--owner-${colours.get(owner)})`;
}
