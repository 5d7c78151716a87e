// How the reader wants to see it: one state for the whole page, and those who follow it.

const START = {
  step: 0,
  opacity: 0.7,
  colormap: "auto",
  fade: true,
  smooth: true,
  contour: false,
  level: 0.5,
  boxes: true,
  scale: "steps",
  gain: 1,
  zoom: "fit",
  wipe: false,
  wipeStep: 0,
  wipeShare: 0.5,
  slice: 0,
  text: "",
  label: "",
  kept: "all",
  sort: "logged",
  playing: false,
  speed: 4,
};

export class View {
  constructor() {
    Object.assign(this, START);
    this.series = []; // all that the log holds
    this.shown = []; // those that are side by side, in order
    this.choice = undefined; // what is to be shown, once it has been chosen
    this.steps = []; // all steps of those, in order
    this.followers = [];
  }

  /** Call `follower(names)` after each change, with the names of what changed. */
  follow(follower) {
    this.followers.push(follower);
  }

  /** Call a follower after changes of the state alone, not where data has come. */
  followState(follower) {
    this.follow((names) => {
      if (names.size > 1 || !names.has("data")) {
        follower(names);
      }
    });
  }

  /** Change some of the state. */
  set(changes) {
    const changed = Object.keys(changes).filter((name) => this[name] !== changes[name]);
    Object.assign(this, changes);
    if (changed.length > 0) {
      this.tell(changed);
    }
  }

  /** Tell the followers of a change, or that data has come ("data"). */
  tell(names) {
    this.followers.forEach((follower) => follower(new Set(names)));
  }

  /** Show these series side by side, once their cards are known. */
  async choose(shown) {
    this.choice = shown;
    await Promise.all(shown.map((series) => series.load()));
    if (this.choice === shown) {
      this.set({ shown, ...this.stepsOf(shown) });
    }
  }

  /** Take the steps that have come since. */
  refresh() {
    this.set(this.stepsOf(this.shown));
    this.tell(["data"]);
  }

  /** All steps of these series; who was at the last one stays at the last one. */
  stepsOf(shown) {
    const steps = [...new Set(shown.flatMap((series) => series.steps))].sort((a, b) => a - b);
    const isNew = this.steps.length === 0;
    const wasLast = isNew || this.step === this.steps[this.steps.length - 1];
    const last = steps[steps.length - 1] ?? 0;
    return {
      steps,
      step: wasLast || !steps.includes(this.step) ? last : this.step,
      wipeStep: isNew ? (steps[0] ?? 0) : this.wipeStep,
    };
  }

  /** Go to the logged step next to this one, and return it. */
  goTo(step) {
    if (this.steps.length === 0 || Number.isNaN(step)) {
      return this.step;
    }
    const nearest = this.steps.reduce((best, each) =>
      Math.abs(each - step) < Math.abs(best - step) ? each : best,
    );
    this.set({ step: nearest });
    return nearest;
  }

  /** Go some logged steps on or back. */
  move(count) {
    const last = this.steps.length - 1;
    const index = Math.min(Math.max(this.stepIndex + count, 0), last);
    this.set({ step: this.steps[index] ?? this.step });
  }

  get stepIndex() {
    return Math.max(this.steps.indexOf(this.step), 0);
  }

  /** How many slices the deepest of the shown maps has; 1 where there are none. */
  get depth() {
    const grids = this.shown.map((series) => series.headers.get(series.steps[0])?.grid ?? []);
    return Math.max(1, ...grids.map((grid) => (grid.length === 3 ? grid[0] : 1)));
  }

  get busy() {
    return this.shown.some((series) => series.busy);
  }
}
