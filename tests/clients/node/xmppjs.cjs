// xmpp.js: SCRAM-SHA-1, stream management, and a new connection by itself where one is lost.
"use strict";

const { client, xml } = require("@xmpp/client");
const { say, obey, ...login } = require("./talk.cjs");

const xmpp = client(login);

xmpp.on("online", (jid) => {
  say({ online: jid.toString() });
  xmpp.send(xml("presence"));
});
xmpp.on("stanza", (stanza) => {
  const { from, type } = stanza.attrs;
  const event = { [stanza.name]: from, type };
  if (stanza.is("message")) event.body = stanza.getChildText("body");
  say(event);
});
xmpp.on("status", (status) => say({ status }));
xmpp.on("error", (error) => say({ error: String(error) }));
// `<resumed/>` is no stanza.
xmpp.on("nonza", (nonza) => say({ nonza: nonza.name }));

obey(
  (to, body) => xmpp.send(xml("message", { to, type: "chat" }, xml("body", {}, body))),
  () => xmpp.stop().then(() => process.exit(0)),
);
xmpp.start().catch((error) => say({ error: String(error) }));
