// What the catalogue says about items, asked for once each.

import { itemFacts } from "./api.js";

const known = new Map();
const AT_ONCE = 100;

export const factsOf = (id) => known.get(id) ?? { title: null, tags: [] };

export const titleOf = (id) => factsOf(id).title || id;

export function learn(id, title, tags) {
  if (title || tags?.length) known.set(id, { title, tags: tags ?? [] });
}

// True when something new was learned about these items.
export async function lookUp(ids) {
  const missing = ids.filter((id) => !known.has(id)).slice(0, AT_ONCE);
  if (!missing.length) return false;
  try {
    const { items } = await itemFacts(missing);
    // An item that is not in the catalogue yet is asked for again with the next list.
    for (const [id, facts] of Object.entries(items)) known.set(id, facts);
    return Object.keys(items).length > 0;
  } catch {
    return false;
  }
}

// A colour of its own for each item, as a stand-in for its cover.
export function hue(id) {
  let h = 2166136261;
  for (const char of id) h = Math.imul(h ^ char.codePointAt(0), 16777619);
  // Ids that follow each other hash close together; the golden ratio spreads them.
  return Math.round((((h >>> 0) * 0.618033988749895) % 1) * 360);
}
