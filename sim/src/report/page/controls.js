// Input by mouse and keyboard: filters, zoom, drag, selection. Each changes the view or the selection
// and requests a drawing.

const byId = (id) => document.getElementById(id);

function addCheckbox(to, text, name, onchange) {
  const box = element('input', { type: 'checkbox', 'data-name': name });
  box.checked = true;
  box.addEventListener('change', () => onchange(box.checked));
  to.append(element('label', {}, box, text));
}

function addFilters(page) {
  shown.nodes.forEach((_, node) => addCheckbox(byId('node-filter'), String(node), `node-${node}`, (is) => {
    shown.nodes[node] = is;
    page.filtersChanged();
  }));
  for (const [group, text] of GROUPS) {
    addCheckbox(byId('kind-filter'), text, group, (is) => {
      if (is) shown.groups.add(group); else shown.groups.delete(group);
      page.filtersChanged();
    });
  }
  byId('call-filter').addEventListener('input', () => page.filterCalls(byId('call-filter').value));
}

function addZoom(page) {
  const middle = () => (view.from + view.to) / 2;
  byId('zoom-in').addEventListener('click', () => page.zoom(middle(), 0.5));
  byId('zoom-out').addEventListener('click', () => page.zoom(middle(), 2));
  byId('zoom-fit').addEventListener('click', () => page.show(WHOLE.from, WHOLE.to));
  byId('diagram').addEventListener('wheel', (wheel) => {
    // Horizontal deltas move; with shift, a wheel of one axis does that too.
    const along = wheel.shiftKey ? wheel.deltaY : wheel.deltaX;
    wheel.preventDefault();
    const lines = wheel.deltaMode === 1 ? 16 : 1;
    if (Math.abs(along) > Math.abs(wheel.shiftKey ? 0 : wheel.deltaY)) {
      return page.move(along * lines / plotWidth());
    }
    return page.zoom(timeOf(Math.max(wheel.offsetX, GUTTER)), Math.exp(wheel.deltaY * lines * 0.0022));
  }, { passive: false });
}

// A press that moves is a drag, any other is a click.
const STILL = 4;

function addPointer(page) {
  const canvas = byId('diagram');
  let press = null;
  canvas.addEventListener('pointerdown', (down) => {
    if (down.button !== 0) return;
    press = { x: down.clientX, y: down.clientY, from: view.from, to: view.to, moved: false };
    // A synthetic pointer, as in the self-test, cannot be captured.
    try { canvas.setPointerCapture(down.pointerId); } catch { /* then without */ }
  });
  canvas.addEventListener('pointermove', (move) => {
    if (!press) return page.hover(move.offsetX, move.offsetY, move.clientX, move.clientY);
    const far = Math.hypot(move.clientX - press.x, move.clientY - press.y);
    press.moved ||= far > STILL;
    if (!press.moved) return undefined;
    canvas.classList.add('dragging');
    const by = (press.x - move.clientX) * (press.to - press.from) / plotWidth();
    return page.show(press.from + by, press.to + by);
  });
  const release = (up) => {
    canvas.classList.remove('dragging');
    if (press && !press.moved && up.type === 'pointerup') page.click(up.offsetX, up.offsetY);
    press = null;
  };
  canvas.addEventListener('pointerup', release);
  canvas.addEventListener('pointercancel', release);
  canvas.addEventListener('pointerleave', () => page.leave());
}

function addKeys(page) {
  const middle = () => (view.from + view.to) / 2;
  const keys = {
    ArrowLeft: () => page.move(-0.15), ArrowRight: () => page.move(0.15),
    PageUp: () => page.move(-0.9), PageDown: () => page.move(0.9),
    Home: () => page.move(-Infinity), End: () => page.move(Infinity),
    '+': () => page.zoom(middle(), 0.5), '=': () => page.zoom(middle(), 0.5), '-': () => page.zoom(middle(), 2),
    f: () => page.show(WHOLE.from, WHOLE.to), 0: () => page.show(WHOLE.from, WHOLE.to),
    n: () => page.list.step(1), p: () => page.list.step(-1),
    c: () => page.filterSelectedCall(), v: () => page.nextViolation(), Escape: () => page.escape(),
  };
  const run = (key) => {
    const action = !key.ctrlKey && !key.metaKey && !key.altKey && keys[key.key];
    if (!action) return;
    key.preventDefault();
    action();
  };
  byId('diagram').addEventListener('keydown', run);
  // The letters also work from the list, which handles the arrows itself.
  byId('list').addEventListener('keydown', (key) => {
    if (key.key.length === 1 || key.key === 'Escape') run(key);
  });
}

// In the overview, a press centres the view there, and a drag moves it.
function addOverview(page) {
  const canvas = byId('overview');
  let isPressed = false;
  const go = (event) => {
    const part = (event.offsetX - GUTTER) / plotWidth();
    const time = WHOLE.from + part * (WHOLE.to - WHOLE.from);
    const half = (view.to - view.from) / 2;
    page.show(time - half, time + half);
  };
  canvas.addEventListener('pointerdown', (down) => {
    isPressed = true;
    try { canvas.setPointerCapture(down.pointerId); } catch { /* then without */ }
    go(down);
  });
  canvas.addEventListener('pointermove', (move) => { if (isPressed) go(move); });
  for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, () => { isPressed = false; });
}

function addDivider() {
  const divider = byId('divider');
  const below = document.querySelector('.below');
  const set = (height) => {
    const limit = document.body.clientHeight - 300;
    below.style.setProperty('--below', `${Math.min(Math.max(height, 90), Math.max(limit, 90))}px`);
  };
  let start = null;
  divider.addEventListener('pointerdown', (down) => {
    start = { y: down.clientY, height: below.clientHeight };
    divider.setPointerCapture(down.pointerId);
  });
  divider.addEventListener('pointermove', (move) => { if (start) set(start.height + start.y - move.clientY); });
  for (const end of ['pointerup', 'pointercancel']) divider.addEventListener(end, () => { start = null; });
  divider.addEventListener('keydown', (key) => {
    const by = { ArrowUp: 20, ArrowDown: -20 }[key.key];
    if (by) { key.preventDefault(); set(below.clientHeight + by); }
  });
}
