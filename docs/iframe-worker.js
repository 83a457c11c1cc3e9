// Search in a site that is opened from a disk: browsers start no worker for file://, so its script runs in a hidden frame instead.
// The plugin `offline` of mkdocs-material looks for a file of this name; without one it would name an address in the network.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.ready = new Promise((resolve) => {
        frame.addEventListener("load", () => {
          const inside = frame.contentWindow;
          inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
          const script = frame.contentDocument.createElement("script");
          script.src = address;
          script.addEventListener("load", () => resolve(inside));
          frame.contentDocument.head.append(script);
        }, { once: true });
      });
      frame.srcdoc = "<!doctype html>";
      document.body.append(frame);
    }

    postMessage(data) {
      this.ready.then((inside) => inside.dispatchEvent(new inside.MessageEvent("message", { data })));
    }
  };
