"""Verifies requests, one JSON object a line, with the library of Standard Webhooks."""

import base64
import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError

verified = refused = 0
for line in open(sys.argv[1], encoding="utf-8"):
    request = json.loads(line)
    names = ("id", "timestamp", "signature")
    headers = {f"webhook-{name}": request[name] for name in names}
    body = base64.b64decode(request["body"])
    Webhook(request["secret"]).verify(body, headers)
    verified += 1
    try:
        Webhook(request["secret"]).verify(body + b" ", headers)
    except WebhookVerificationError:
        refused += 1
print(f"{verified} verified, {refused} refused when changed")
