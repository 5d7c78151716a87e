// A store that forgets what was used longest ago.

export class Lately {
  /** Keep entries whose sizes add up to at most `limit`; `dropped` hears of those that go. */
  constructor(limit, dropped = () => {}) {
    this.limit = limit;
    this.dropped = dropped;
    this.size = 0;
    this.entries = new Map();
  }

  get(key) {
    const entry = this.entries.get(key);
    if (entry === undefined) {
      return undefined;
    }
    this.entries.delete(key);
    this.entries.set(key, entry);
    return entry.value;
  }

  has(key) {
    return this.entries.has(key);
  }

  set(key, value, size = 1) {
    this.delete(key);
    this.entries.set(key, { value, size });
    this.size += size;
    for (const [oldest, entry] of this.entries) {
      if (this.size <= this.limit || oldest === key) {
        break;
      }
      this.delete(oldest);
      this.dropped(entry.value);
    }
  }

  delete(key) {
    const entry = this.entries.get(key);
    if (entry !== undefined) {
      this.entries.delete(key);
      this.size -= entry.size;
    }
  }
}
