// Events of a page, for which a test waits one after the other.
export class Log {
  constructor() {
    this.events = [];
    this.read = 0;
    this.waiting = [];
  }

  add(name, detail) {
    this.events.push({ name, detail: String(detail ?? "") });
    this.waiting.splice(0).forEach((wake) => wake());
  }

  // wait resolves with the next event of that name.
  async wait(name) {
    for (;;) {
      for (let i = this.read; i < this.events.length; i++) {
        if (this.events[i].name === name) {
          this.read = i + 1;
          return this.events[i].detail;
        }
      }
      await new Promise((wake) => this.waiting.push(wake));
    }
  }
}
