// The list of events. Only the visible rows are in the document.

const ROW = 20;

class EventList {
  constructor(box, rows, count, select) {
    Object.assign(this, { box, rows, count, select, indices: [], made: new Map() });
    box.addEventListener('scroll', () => this.render());
    new ResizeObserver(() => this.render()).observe(box);
    rows.addEventListener('click', (click) => {
      const row = click.target.closest('.row');
      if (row) select(Number(row.dataset.index));
    });
    box.addEventListener('keydown', (key) => this.handleKey(key));
  }

  // Lists the events that pass the filters.
  refresh() {
    const { calls, groups, nodes } = shown;
    const passes = (index) => {
      const group = groupOf(index);
      if (group && !groups.has(group)) return false;
      const node = nodeOf(index);
      if (node !== null && !nodes[node]) return false;
      return !calls || calls.has(callOf(index));
    };
    this.indices = [];
    for (let index = 0; index < events.length; index++) if (passes(index)) this.indices.push(index);
    this.rows.style.height = `${this.indices.length * ROW}px`;
    this.count.textContent = this.indices.length === events.length
      ? events.length.toLocaleString('en')
      : `${this.indices.length.toLocaleString('en')} of ${events.length.toLocaleString('en')}`;
    this.render();
  }

  // Returns the first row at or after an index of the trace.
  rowOf(index) {
    return lowerBound(this.indices.length, (row) => this.indices[row] >= index);
  }

  reveal(index) {
    const top = this.rowOf(index) * ROW;
    const { scrollTop, clientHeight } = this.box;
    if (top < scrollTop || top + ROW > scrollTop + clientHeight) {
      this.box.scrollTop = Math.max(top - clientHeight / 2 + ROW / 2, 0);
    }
    this.render();
  }

  render() {
    const first = Math.max(Math.floor(this.box.scrollTop / ROW) - 4, 0);
    const last = Math.min(first + Math.ceil(this.box.clientHeight / ROW) + 8, this.indices.length);
    const call = selection.index === null ? null : callOf(selection.index);
    const rows = [];
    for (let row = first; row < last; row++) rows.push(this.row(row, call));
    this.rows.replaceChildren(...rows);
    const here = selection.index !== null && document.getElementById(`event-${selection.index}`);
    if (here) this.box.setAttribute('aria-activedescendant', here.id);
    else this.box.removeAttribute('aria-activedescendant');
  }

  row(row, call) {
    const index = this.indices[row];
    const kind = events[index].event;
    const classes = ['row', kind === 'violated' ? 'alarm' : '', kind === 'fault' ? 'fault' : '',
      call !== null && callOf(index) === call ? 'same' : ''];
    const line = lineOf(index);
    return element('div', {
      class: classes.filter(Boolean).join(' '), role: 'option', id: `event-${index}`,
      'data-index': index, 'aria-selected': index === selection.index, 'aria-setsize': this.indices.length,
      'aria-posinset': row + 1, style: `top: ${row * ROW}px`, title: line.trim(),
    }, element('span', { class: 'when', text: line.slice(0, 11) }), line.slice(11));
  }

  handleKey(key) {
    const page = Math.max(Math.floor(this.box.clientHeight / ROW) - 1, 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const step = steps[key.key];
    if (step === undefined || !this.indices.length) return;
    key.preventDefault();
    this.step(step);
  }

  // Selects the event `by` rows further.
  step(by) {
    if (!this.indices.length) return;
    const here = selection.index === null ? (by > 0 ? -1 : this.indices.length) : this.rowOf(selection.index);
    this.select(this.indices[Math.min(Math.max(here + by, 0), this.indices.length - 1)]);
  }
}
