// The page: connects the selection with the drawing, and exposes `window.simReport` to tests.

class Page {
  constructor() {
    this.canvas = byId('diagram');
    this.context = this.canvas.getContext('2d');
    this.list = new EventList(byId('list'), byId('rows'), byId('event-count'), (index) => this.select(index));
    this.waits = false;
    this.clicked = null;
    addFilters(this);
    addZoom(this);
    addPointer(this);
    addKeys(this);
    addOverview(this);
    addDivider();
    this.fillHeader();
    fillLegend(byId('legend'));
    fillDetails(byId('details'), null);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.restyle());
    new ResizeObserver(() => this.resize()).observe(byId('stage'));
    this.restyle();
    this.resize();
    this.list.refresh();
  }

  fillHeader() {
    const title = data.scenario || 'Run';
    const failed = diagram.violations.length;
    document.title = `${failed ? 'violated' : 'no violation'}: ${title}, seed ${data.seed}`;
    byId('title').textContent = title;
    byId('facts').textContent = facts();
    byId('verdict').textContent = failed ? `${failed} violated` : 'all invariants hold';
    byId('verdict').classList.toggle('bad', failed > 0);
    byId('plan').textContent = data.plan;
    byId('show-plan').addEventListener('click', () => {
      byId('plan').hidden = !byId('plan').hidden;
      byId('show-plan').setAttribute('aria-expanded', String(!byId('plan').hidden));
    });
    const box = byId('violations');
    box.hidden = failed === 0;
    box.replaceChildren(...diagram.violations.map((index) => element('div', { class: 'violation' },
      element('b', { text: `${events[index].invariant} at ${seconds(index)}` }),
      element('span', { text: events[index].text }),
      element('button', { type: 'button', text: 'Show', 'aria-label': `Show violation of ${events[index].invariant}`,
        onclick: () => this.jumpTo(index) }))));
  }

  restyle() {
    readColours(this.context);
    this.histogram = null;
    this.draw();
  }

  resize() {
    const stage = byId('stage');
    layOut(stage.clientWidth, stage.clientHeight);
    for (const [canvas, height] of [[this.canvas, view.height], [byId('overview'), 46]]) {
      const ratio = window.devicePixelRatio || 1;
      canvas.width = Math.round(view.width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.height = `${height}px`;
      canvas.getContext('2d').setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    this.histogram = null;
    // The canvas is empty now: drawing at once avoids a flicker.
    this.drawNow();
  }

  draw() {
    if (this.waits) return;
    this.waits = true;
    requestAnimationFrame(() => {
      this.waits = false;
      this.drawNow();
    });
  }

  drawNow() {
    drawAll(this.context);
    this.drawOverview();
  }

  // Draws the number of events over time, the faults, and the extent of the view.
  drawOverview() {
    const context = byId('overview').getContext('2d');
    const width = plotWidth();
    const scale = width / (WHOLE.to - WHOLE.from);
    this.histogram ??= countPerPixel(width, scale);
    context.clearRect(0, 0, view.width, 46);
    context.fillStyle = colour.panel;
    context.fillRect(0, 0, view.width, 46);
    const from = GUTTER + (view.from - WHOLE.from) * scale;
    const wide = Math.max((view.to - view.from) * scale, 2);
    context.fillStyle = colour.accent;
    context.globalAlpha = 0.13;
    context.fillRect(from, 0, wide, 46);
    context.globalAlpha = 0.16;
    for (const faultSpan of faultSpans) {
      context.fillStyle = faultSpan.off ? colour.off : colour.fault;
      context.fillRect(GUTTER + faultSpan.from * scale, 2, Math.max((faultSpan.to - faultSpan.from) * scale, 1), 5);
    }
    context.globalAlpha = 0.75;
    context.fillStyle = colour.message;
    this.histogram.forEach((height, x) => context.fillRect(GUTTER + x, 44 - height, 1, height));
    context.globalAlpha = 1;
    context.strokeStyle = colour.accent;
    context.strokeRect(from + 0.5, 0.5, Math.max(wide - 1, 1), 45);
    context.fillStyle = colour.alarm;
    for (const index of diagram.violations) context.fillRect(GUTTER + times[index] * scale - 1, 0, 2.5, 46);
    context.fillStyle = colour.soft;
    context.font = SMALL;
    context.textBaseline = 'middle';
    context.fillText('whole run', 12, 23);
  }

  show(from, to) {
    setRange(from, to);
    this.leave();
    this.draw();
  }

  zoom(time, factor) {
    zoomAround(time, factor);
    this.leave();
    this.draw();
  }

  // Moves the view by a fraction of its width.
  move(part) {
    const span = view.to - view.from;
    const by = Math.min(Math.max(part * span, WHOLE.from - view.from), WHOLE.to - view.to);
    this.show(view.from + by, view.to + by);
  }

  filtersChanged() {
    layOut(byId('stage').clientWidth, byId('stage').clientHeight);
    this.resize();
    this.list.refresh();
    if (selection.index !== null) this.list.reveal(selection.index);
  }

  // Takes a text with numbers of calls; without any number, all calls are shown.
  filterCalls(text) {
    const calls = (text.match(/\d+/g) ?? []).map(Number);
    shown.calls = calls.length ? new Set(calls) : null;
    const found = calls.reduce((sum, call) => sum + (indicesOfCall.get(call)?.length ?? 0), 0);
    byId('matches').textContent = calls.length ? `${found} events` : '';
    if (byId('call-filter').value !== text) byId('call-filter').value = text;
    this.list.refresh();
    if (selection.index !== null) this.list.reveal(selection.index);
    this.bringIntoView(this.list.indices);
    this.draw();
  }

  // Moves the view if none of the filtered calls is in it.
  bringIntoView(indices) {
    if (!shown.calls || !indices.length) return;
    const from = times[indices[0]];
    const to = times[indices[indices.length - 1]];
    if (from <= view.to && to >= view.from) return;
    const room = Math.max((to - from) * 0.1, 2 * data.tick_ms);
    setRange(from - room, to + room);
  }

  filterSelectedCall() {
    const call = selection.index === null ? null : callOf(selection.index);
    this.filterCalls(shown.calls || call === null ? '' : String(call));
  }

  select(index) {
    selection.index = index;
    fillDetails(byId('details'), index, (one) => this.select(one));
    if (index !== null) {
      const room = (view.to - view.from) * 0.04;
      const outside = times[index] < view.from + room / 4 || times[index] > view.to - room / 4;
      const half = (view.to - view.from) / 2;
      if (outside) setRange(times[index] - half, times[index] + half);
      this.list.reveal(index);
    } else {
      this.list.render();
    }
    this.draw();
  }

  escape() {
    if (selection.index !== null) this.select(null);
    else this.filterCalls('');
  }

  // Shows the part of the run around an event, and selects the event.
  jumpTo(index) {
    const half = Math.min((WHOLE.to - WHOLE.from) / 2, Math.max(200, data.tick_ms * 40));
    setRange(times[index] - half, times[index] + half);
    this.select(index);
    this.canvas.focus({ preventScroll: true });
  }

  nextViolation() {
    const all = diagram.violations;
    const next = all.find((index) => selection.index === null || index > selection.index) ?? all[0];
    if (next !== undefined) this.jumpTo(next);
  }

  // Repeated clicks go through the overlapping items.
  click(x, y) {
    const indices = [...new Set(hitsAt(x, y).map((item) => item.index).filter((index) => index !== null))];
    if (!indices.length) return this.select(null);
    const again = this.clicked && Math.hypot(this.clicked.x - x, this.clicked.y - y) < STILL;
    const at = again ? indices.indexOf(selection.index) + 1 : 0;
    this.clicked = { x, y };
    return this.select(indices[at % indices.length]);
  }

  hover(x, y, pageX, pageY) {
    const hits = hitsAt(x, y);
    const tip = byId('tip');
    this.canvas.style.cursor = hits.length ? 'pointer' : '';
    tip.hidden = !hits.length;
    if (!hits.length) return;
    fillTip(tip, hits);
    const { width, height } = tip.getBoundingClientRect();
    const left = pageX + 16 + width > innerWidth ? pageX - 16 - width : pageX + 16;
    const top = Math.min(pageY + 14, innerHeight - height - 8);
    tip.style.left = `${Math.max(left, 8)}px`;
    tip.style.top = `${Math.max(top, 8)}px`;
  }

  leave() {
    byId('tip').hidden = true;
  }
}

function countPerPixel(width, scale) {
  const counts = new Float64Array(Math.ceil(width));
  for (const time of times) counts[Math.min(Math.floor(time * scale), counts.length - 1)]++;
  const most = counts.reduce((one, other) => Math.max(one, other), 1);
  return counts.map((count) => (count ? Math.max(Math.sqrt(count / most) * 34, 1) : 0));
}

const page = new Page();

window.simReport = {
  data, view, selection, shown, drawn, messages, bars, states, faultSpans, points, verticals,
  // Draws at once, and returns the statistics of the drawing.
  draw: () => { page.drawNow(); return drawn; },
  range: () => ({ from: view.from, to: view.to }),
  setRange: (from, to) => page.show(from, to),
  selected: () => selection.index,
  select: (index) => page.select(index),
  filter: (text) => page.filterCalls(text),
  whereIs,
};
