#!/bin/sh
# An agent asks people before it acts. docs/examples/approval.md tells what happens here, step by step.
set -eu
: "${TERTULIA:=http://127.0.0.1:8080}"
: "${KEY:?set it to the admin key that the server printed at its first start}"

# METHOD PATH [BODY] [HEADER]: a request, and its answer's body.
api() {
    curl --silent --show-error --fail -X "$1" "$TERTULIA/api/v1$2" -H "X-API-Key: $KEY" \
        -H "Content-Type: application/json" ${4:+-H "$4"} ${3:+--data "$3"}
}

# NAME: the first string of that name in the JSON on standard input.
field() {
    grep -o "\"$1\":\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4
}

# A channel where people decide, and somebody who may.
api POST /channels '{"id": "approvals", "name": "Approvals", "kind": "human"}' >/dev/null
ana=$(api POST /api-keys '{"name": "Ana", "scopes": ["messages:read", "reviews:respond"],
    "principal": {"type": "user", "id": "ana"}}' | field key)

# An agent that may ask them, and the channel where customers write to it. A scripted agent says the same every time;
# with "provider": "openai" a model decides by itself when to ask.
api POST /agents '{"id": "shipping", "name": "Shipping", "provider": "builtin",
    "tools": [{"name": "request_review"}],
    "builtin": {"behaviour": "scripted", "script": [
        {"match": "cancel my order", "reply": [], "toolCall": {"name": "request_review", "arguments": {
            "channelId": "approvals", "text": "A customer wants to cancel an order that is packed. Refund it?",
            "type": "approval", "expiresInSeconds": 86400}}},
        {"match": "\"selectedOption\":\"approve\"", "reply": ["Your order is cancelled, the refund is on its way."]},
        {"match": "\"selectedOption\":\"reject\"", "reply": ["I am sorry, the parcel has left already."]},
        {"match": "\"status\":\"expired\"", "reply": ["Nobody could decide today. Please write again tomorrow."]}]}}' \
    >/dev/null
api POST /channels '{"id": "orders", "name": "Orders", "kind": "api", "agentId": "shipping"}' >/dev/null

# A customer writes. The turn waits for a person, which may take hours, so the request does not.
write='{"type": "TEXT", "contactIdentifier": "kim@example.com", "contactName": "Kim",
    "content": {"text": {"body": "Please cancel my order."}}}'
answer=$(curl --silent --show-error --fail "$TERTULIA/api/v1/channels/orders/messages" -H "X-API-Key: $KEY" \
    -H "Content-Type: application/json" -H "Idempotency-Key: kim-1" -H "Prefer: respond-async" --data "$write")
echo "customer: Please cancel my order."
conversation=$(echo "$answer" | field conversationId)

# The people of the channel have it in their inbox.
review=""
while [ -z "$review" ]; do
    review=$(api GET '/reviews?status=pending&channelId=approvals' | field id || true)
    [ -n "$review" ] || sleep 0.1
done
echo "asked:    $(api GET "/messages/$review" | field text)"

# Ana decides.
KEY=$ana api POST "/reviews/$review/respond" \
    '{"response": {"selectedOption": "approve"}, "feedback": "It is still in the house."}' >/dev/null
echo "ana:      approve"

# The same request again joins the turn and gets its reply; nothing is sent twice.
answer=$(curl --silent --show-error --fail "$TERTULIA/api/v1/channels/orders/messages" -H "X-API-Key: $KEY" \
    -H "Content-Type: application/json" -H "Idempotency-Key: kim-1" --data "$write")
echo "agent:    $(echo "$answer" | field body)"

# What the agent did stands in the conversation: its call and the decision, between question and reply.
roles=$(api GET "/conversations/$conversation/messages" | grep -o '"role":"[a-z]*"' | cut -d '"' -f 4 | tr '\n' ' ')
echo "history:  ${roles% }"
