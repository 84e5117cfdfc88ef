// strophe.js, as Converse.js has it below: over WebSocket, or over BOSH where the service is by HTTP.
"use strict";

const { Strophe, $msg, $pres } = require("strophe.js");
const { service, domain, username, password, resource, say, obey } = require("./talk.cjs");

// Browsers have it; and strophe.js looks at the document only.
const { Agent } = require("node:https");
const { DOMParser } = require("@xmldom/xmldom");
const { XMLHttpRequest } = require("xmlhttprequest-ssl");
const agent = new Agent({ keepAlive: true });
globalThis.XMLHttpRequest = class extends XMLHttpRequest {
  constructor() {
    super({ agent });
    const parsed = () => new DOMParser().parseFromString(this.responseText, "text/xml");
    Object.defineProperty(this, "responseXML", { get: () => this.responseText && parsed() });
  }
};

const connection = new Strophe.Connection(service);

connection.connect(`${username}@${domain}/${resource}`, password, (status, condition) => {
  const name = Object.keys(Strophe.Status).find((name) => Strophe.Status[name] === status);
  say({ status: name, condition });
  if (status !== Strophe.Status.CONNECTED) return;
  say({ online: connection.jid });
  connection.addHandler((message) => {
    const body = message.getElementsByTagName("body")[0];
    const type = message.getAttribute("type");
    say({ message: message.getAttribute("from"), type, body: body?.textContent });
    return true;
  }, null, "message");
  connection.addHandler((presence) => {
    say({ presence: presence.getAttribute("from"), type: presence.getAttribute("type") });
    return true;
  }, null, "presence");
  connection.send($pres());
});

obey(
  (to, body) => connection.send($msg({ to, type: "chat" }).c("body").t(body)),
  () => connection.disconnect("bye"),
);
