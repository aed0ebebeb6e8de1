// Verifies requests, one JSON object a line, with the library of Standard Webhooks.
const fs = require("node:fs");
const { Webhook } = require("standardwebhooks");

let verified = 0;
let refused = 0;
for (const line of fs.readFileSync(process.argv[2], "utf8").split("\n")) {
  const request = JSON.parse(line);
  const headers = {
    "webhook-id": request.id,
    "webhook-timestamp": request.timestamp,
    "webhook-signature": request.signature,
  };
  const body = Buffer.from(request.body, "base64").toString("utf8");
  new Webhook(request.secret).verify(body, headers);
  verified += 1;
  try {
    new Webhook(request.secret).verify(`${body} `, headers);
  } catch {
    refused += 1;
  }
}
console.log(`${verified} verified, ${refused} refused when changed`);
