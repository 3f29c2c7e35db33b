// Keyed lists: each container named by data-list shows rows made from the template named by data-row. Rows that the
// server rendered are taken over; a row is touched only where a slot's text has changed.

const SLOT = /^\{(\w+)\}$/;

// Where the slots of a template are: the path of child elements, and the attribute, or none for the text.
const compile = (id) => {
  const root = document.getElementById(`row-${id}`).content.firstElementChild;
  const slots = [];
  const walk = (element, path) => {
    for (const { name, value } of element.attributes) {
      const slot = SLOT.exec(value)?.[1];
      if (slot) slots.push({ path, attribute: name, slot });
    }
    const slot = element.children.length ? null : SLOT.exec(element.textContent)?.[1];
    if (slot) slots.push({ path, attribute: null, slot });
    [...element.children].forEach((child, i) => walk(child, [...path, i]));
  };
  walk(root, []);
  return { root, slots };
};

// Changes that the first update made to what the server rendered, times of day aside: none, unless the two sides differ.
export const differences = [];

class Row {
  constructor(element, slots, adopted) {
    this.element = element;
    this.parts = slots.map(({ path, attribute, slot }) => {
      const target = path.reduce((parent, i) => parent.children[i], element);
      const text = attribute === null ? target.textContent : target.getAttribute(attribute);
      return { target, attribute, slot, text: adopted ? text : null };
    });
  }

  update(values, report) {
    for (const part of this.parts) {
      const text = String(values[part.slot] ?? "");
      if (part.text === text) continue;
      if (report && part.target.localName !== "time") differences.push(`${part.slot}: ${part.text} -> ${text}`);
      part.text = text;
      if (part.attribute === null) part.target.textContent = text;
      else part.target.setAttribute(part.attribute, text);
    }
  }
}

export class List {
  constructor(container) {
    this.container = container;
    this.name = container.dataset.list;
    this.template = compile(container.dataset.row);
    this.rows = new Map();
    this.fresh = true;
    for (const element of container.children) {
      this.rows.set(element.dataset.key, new Row(element, this.template.slots, true));
    }
  }

  // Shows `items` in their order; calls `changed(element, before, item)` with the item a row showed before.
  update(items, changed) {
    const { container, rows } = this;
    const focused = container.contains(document.activeElement) ? document.activeElement : null;
    const gone = new Set(rows.keys());
    let cursor = container.firstElementChild;
    for (const item of items) {
      let row = rows.get(item.key);
      if (!row) {
        if (this.fresh) differences.push(`${this.name}: new row ${item.key}`);
        // The copy stays in the inert document until its slots are filled: an open slot must never load an address.
        row = new Row(this.template.root.cloneNode(true), this.template.slots, false);
        rows.set(item.key, row);
      }
      gone.delete(item.key);
      row.update(item, this.fresh && row.parts[0].text !== null);
      changed?.(row.element, row.item, item);
      row.item = item;
      if (row.element === cursor) cursor = cursor.nextElementSibling;
      else container.insertBefore(row.element, cursor);
    }
    for (const key of gone) {
      if (this.fresh) differences.push(`${this.name}: row ${key} is gone`);
      rows.get(key).element.remove();
      rows.delete(key);
    }
    this.fresh = false;
    if (focused && document.activeElement !== focused && focused.isConnected) focused.focus({ preventScroll: true });
  }

  element(key) {
    return this.rows.get(key)?.element;
  }
}
