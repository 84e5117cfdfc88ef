// What both clients do: they say what happens in lines of JSON, and are told by lines "TO BODY" what to send.
// An empty line ends them.
"use strict";

const readline = require("node:readline");

const [service, domain, username, resource] = process.argv.slice(2);
const password = process.env.CLIENT_PASSWORD;

// What they log is none of it.
for (const level of ["log", "info", "debug"]) console[level] = console.error;

function say(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

function obey(send, leave) {
  readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const [to, ...body] = line.split(" ");
    if (to) send(to, body.join(" "));
    else leave();
  });
}

module.exports = { service, domain, username, password, resource, say, obey };
