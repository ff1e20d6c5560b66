// The list of events. Only the rows that are seen are in the document.

const ROW = 20;

class EventList {
  constructor(box, rows, count, select) {
    Object.assign(this, { box, rows, count, select, places: [], made: new Map() });
    box.addEventListener('scroll', () => this.render());
    new ResizeObserver(() => this.render()).observe(box);
    rows.addEventListener('click', (click) => {
      const row = click.target.closest('.row');
      if (row) select(Number(row.dataset.place));
    });
    box.addEventListener('keydown', (key) => this.handleKey(key));
  }

  // Lists what the filters let through.
  refresh() {
    const { calls, groups, nodes } = shown;
    const passes = (place) => {
      const group = groupOf(place);
      if (group && !groups.has(group)) return false;
      const node = nodeOf(place);
      if (node !== null && !nodes[node]) return false;
      return !calls || calls.has(callOf(place));
    };
    this.places = [];
    for (let place = 0; place < events.length; place++) if (passes(place)) this.places.push(place);
    this.rows.style.height = `${this.places.length * ROW}px`;
    this.count.textContent = this.places.length === events.length
      ? events.length.toLocaleString('en')
      : `${this.places.length.toLocaleString('en')} of ${events.length.toLocaleString('en')}`;
    this.render();
  }

  // The first row of the list at or behind a place in the trace.
  rowOf(place) {
    return lowerBound(this.places.length, (row) => this.places[row] >= place);
  }

  reveal(place) {
    const top = this.rowOf(place) * ROW;
    const { scrollTop, clientHeight } = this.box;
    if (top < scrollTop || top + ROW > scrollTop + clientHeight) {
      this.box.scrollTop = Math.max(top - clientHeight / 2 + ROW / 2, 0);
    }
    this.render();
  }

  render() {
    const first = Math.max(Math.floor(this.box.scrollTop / ROW) - 4, 0);
    const last = Math.min(first + Math.ceil(this.box.clientHeight / ROW) + 8, this.places.length);
    const call = chosen.place === null ? null : callOf(chosen.place);
    const rows = [];
    for (let row = first; row < last; row++) rows.push(this.row(row, call));
    this.rows.replaceChildren(...rows);
    const here = chosen.place !== null && document.getElementById(`event-${chosen.place}`);
    if (here) this.box.setAttribute('aria-activedescendant', here.id);
    else this.box.removeAttribute('aria-activedescendant');
  }

  row(row, call) {
    const place = this.places[row];
    const kind = events[place].event;
    const classes = ['row', kind === 'violated' ? 'alarm' : '', kind === 'fault' ? 'trouble' : '',
      call !== null && callOf(place) === call ? 'same' : ''];
    const line = lineOf(place);
    return element('div', {
      class: classes.filter(Boolean).join(' '), role: 'option', id: `event-${place}`,
      'data-place': place, 'aria-selected': place === chosen.place, 'aria-setsize': this.places.length,
      'aria-posinset': row + 1, style: `top: ${row * ROW}px`, title: line.trim(),
    }, element('span', { class: 'when', text: line.slice(0, 11) }), line.slice(11));
  }

  handleKey(key) {
    const page = Math.max(Math.floor(this.box.clientHeight / ROW) - 1, 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const step = steps[key.key];
    if (step === undefined || !this.places.length) return;
    key.preventDefault();
    this.step(step);
  }

  // Selects the event so many rows further.
  step(by) {
    if (!this.places.length) return;
    const here = chosen.place === null ? (by > 0 ? -1 : this.places.length) : this.rowOf(chosen.place);
    this.select(this.places[Math.min(Math.max(here + by, 0), this.places.length - 1)]);
  }
}
