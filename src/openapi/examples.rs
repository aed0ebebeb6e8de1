//! Bodies and answers in their wire form.

use super::operation::Example;

/// `POST /messages` with a question to a human channel.
pub(super) const REVIEW: Example = (
    "review",
    r#"{
  "channelId": "demo",
  "text": "Deploy version **1.4.0** to production?",
  "status": "info",
  "review": {
    "type": "approval",
    "payload": {
      "options": [
        {"id": "approve", "label": "Deploy", "style": "primary"},
        {"id": "reject", "label": "Not today"}
      ],
      "allowComment": true
    },
    "callback": {
      "url": "https://ci.example.com/hooks/reviews",
      "method": "POST",
      "headers": {"X-Pipeline": "4711"}
    },
    "expiresInSeconds": 3600
  },
  "metadata": {"source": "automation"},
  "webhookUrl": "https://ci.example.com/hooks/messages"
}"#,
);

/// `POST /messages` with words only.
pub(super) const NOTICE: Example = (
    "notice",
    r#"{
  "channelId": "demo",
  "text": "Hello from agent",
  "status": "info",
  "metadata": {"source": "automation"}
}"#,
);

/// Its answer.
pub(super) const REVIEW_VIEW: Example = (
    "channelMessage",
    r#"{
  "id": "msg_06a1yabw0359f08js8dvvjqtr800000008",
  "channelId": "demo",
  "senderType": "agent",
  "senderId": "demo",
  "createdAt": "2025-01-01T00:00:00.000Z",
  "attachments": [
    {
      "id": "att_06a1yabw036gnac5c53vdhdmzw",
      "messageId": "msg_06a1yabw0359f08js8dvvjqtr800000008",
      "pluginType": "file",
      "filename": "report.pdf",
      "mimeType": "application/pdf",
      "size": 1024,
      "storageKey": "uploads/att_06a1yabw036gnac5c53vdhdmzw/report.pdf",
      "createdAt": "2025-01-01T00:00:00.000Z"
    }
  ],
  "text": "Hello from agent",
  "status": "info",
  "review": {
    "type": "approval",
    "status": "pending",
    "payload": null,
    "expiresAt": "2025-01-01T01:00:00.000Z",
    "response": null,
    "feedback": null,
    "decidedBy": null,
    "completedAt": null
  },
  "metadata": {"source": "automation"}
}"#,
);

/// `POST /messages` with a message of a conversation.
pub(super) const SAID: Example = (
    "conversation",
    r#"{
  "content": {
    "content": "My name is Ana, and I like window seats.",
    "sender_id": "ana",
    "created_at": "2023-11-07T05:31:56Z",
    "role": "user",
    "message_type": "text",
    "tool_calls": [{}],
    "parent_message_id": null,
    "tags": ["travel"],
    "meta_data": {"client": "web"},
    "attachments": [{}]
  },
  "conversation_id": null,
  "enable_memories": true
}"#,
);

/// `POST /messages` with several at once.
pub(super) const SAID_BATCH: Example = (
    "conversationBatch",
    r##"{
  "content": [
    {"content": "What is the weather in Lisbon?"},
    {"content": "Sunny, 24 degrees.", "role": "assistant", "parent_message_id": "#0"}
  ],
  "conversation_id": "conv_06a1yabw0359f08js8dvvjqtr8"
}"##,
);

/// Their answer.
pub(super) const SAID_VIEW: Example = (
    "conversationMessages",
    r#"[
  {
    "conversation_id": "conv_06a1yabw0359f08js8dvvjqtr8",
    "sender_id": "ana",
    "content": "My name is Ana, and I like window seats.",
    "workspace_id": "default",
    "created_at": "2023-11-07T05:31:56.000Z",
    "updated_at": null,
    "id": "msg_06a1yabw0359f08js8dvvjqtr800000008",
    "role": "user",
    "tool_calls": [{}],
    "message_type": "text",
    "tags": ["travel"],
    "checksum": "sha256:8622c79e395442faded9c434f9d008355f1a740839e31312cadb1da112f850bf",
    "attachments": [{}],
    "parent_message_id": null,
    "meta_data": {"client": "web"},
    "sent_at": "2023-11-07T05:31:56.000Z",
    "owner_id": null
  }
]"#,
);

/// The five kinds of contact messages.
pub(super) const CONTACT: [Example; 5] = [
    (
        "TEXT",
        r#"{
  "content": {"text": {"body": "Hello, how can I help you?"}},
  "type": "TEXT",
  "contactIdentifier": "user@example.com",
  "contactName": "User Name"
}"#,
    ),
    (
        "IMAGE",
        r#"{
  "content": {"image": {"url": "https://example.com/image.jpg", "caption": "Image caption"}},
  "type": "IMAGE",
  "contactIdentifier": "user@example.com"
}"#,
    ),
    (
        "AUDIO",
        r#"{
  "content": {"audio": {"url": "https://example.com/audio.mp3"}},
  "type": "AUDIO",
  "contactIdentifier": "user@example.com"
}"#,
    ),
    (
        "VIDEO",
        r#"{
  "content": {"video": {"url": "https://example.com/video.mp4", "caption": "Video caption"}},
  "type": "VIDEO",
  "contactIdentifier": "user@example.com"
}"#,
    ),
    (
        "DOCUMENT",
        r#"{
  "content": {
    "document": {
      "url": "https://example.com/document.pdf",
      "filename": "document.pdf",
      "caption": "Document description"
    }
  },
  "type": "DOCUMENT",
  "contactIdentifier": "user@example.com"
}"#,
    ),
];

/// The agent's answer to a contact.
pub(super) const CONTACT_ANSWER: Example = (
    "answered",
    r#"{
  "success": true,
  "contactId": "cont_06a1yabw00z27t0p00wnjjhkh4",
  "conversationId": "conv_06a1yabw0359f08js8dvvjqtr8",
  "messageId": "msg_06a1yabw0359f08js8dvvjqtr800000008",
  "conversation": {
    "id": "conv_06a1yabw0359f08js8dvvjqtr8",
    "status": "open",
    "channelId": "demo-api",
    "contactId": "cont_06a1yabw00z27t0p00wnjjhkh4",
    "assignment": {"type": "AI_AGENT", "agentId": "echo"},
    "createdAt": "2025-01-01T00:00:00.000Z",
    "updatedAt": "2025-01-01T00:00:01.000Z",
    "lastMessageAt": "2025-01-01T00:00:01.000Z"
  },
  "aiMessages": [
    {
      "id": "msg_06a1yabw0359f08js8dvvjqtr80000000g",
      "type": "TEXT",
      "content": {"text": {"body": "Hello, how can I help you?"}},
      "createdAt": "2025-01-01T00:00:01.000Z"
    }
  ],
  "usage": {"credits": 0.014, "inputTokens": 7, "outputTokens": 7, "model": "builtin"},
  "turn": {"id": "turn_06a1yabw0359f08js8dvvjqtr80000000c", "status": "completed"}
}"#,
);

/// The answer before the agent's reply.
pub(super) const CONTACT_WAITING: Example = (
    "running",
    r#"{
  "success": true,
  "contactId": "cont_06a1yabw00z27t0p00wnjjhkh4",
  "conversationId": "conv_06a1yabw0359f08js8dvvjqtr8",
  "messageId": "msg_06a1yabw0359f08js8dvvjqtr800000008",
  "conversation": {
    "id": "conv_06a1yabw0359f08js8dvvjqtr8",
    "status": "open",
    "channelId": "demo-api",
    "contactId": "cont_06a1yabw00z27t0p00wnjjhkh4",
    "assignment": {"type": "AI_AGENT", "agentId": "echo"},
    "createdAt": "2025-01-01T00:00:00.000Z",
    "updatedAt": "2025-01-01T00:00:00.000Z",
    "lastMessageAt": "2025-01-01T00:00:00.000Z"
  },
  "aiMessages": [],
  "usage": {"credits": 0, "inputTokens": 0, "outputTokens": 0, "model": null},
  "turn": {"id": "turn_06a1yabw0359f08js8dvvjqtr80000000c", "status": "running"}
}"#,
);

/// `POST /conversations`.
pub(super) const CONVERSATION: Example = (
    "conversation",
    "{\n  \"title\": \"Booking\",\n  \"ownerId\": \"ana\",\n  \"metadata\": {\"topic\": \"travel\"}\n}",
);
/// `PATCH /conversations/{id}`.
pub(super) const CLOSE: Example =
    ("close", "{\n  \"status\": \"closed\",\n  \"summary\": \"A window seat was booked.\"\n}");
/// `POST /conversations/{id}/turns`.
pub(super) const TURN: Example = ("turn", "{\n  \"agentId\": \"echo\"\n}");
/// `PATCH /contacts/{id}`.
pub(super) const CONTACT_NAME: Example = ("name", "{\n  \"name\": \"Ana\"\n}");
/// `POST /contacts`.
pub(super) const CONTACT_NEW: Example =
    ("contact", "{\n  \"identifier\": \"ana@example.com\",\n  \"name\": \"Ana\"\n}");
/// `POST /contacts/bulk`.
pub(super) const CONTACTS_NEW: Example = (
    "contacts",
    "{\n  \"contacts\": [{\"identifier\": \"ana@example.com\", \"name\": \"Ana\"}, {\"identifier\": \"+351 912 000 000\"}]\n}",
);
/// `POST /contacts/{id}/memories`.
pub(super) const MEMORY: Example = ("memory", "{\n  \"text\": \"Prefers window seats\"\n}");
/// `POST /memories/search`.
pub(super) const MEMORY_QUESTION: Example =
    ("question", "{\n  \"query\": \"Where would she like to sit?\",\n  \"ownerId\": \"ana\",\n  \"limit\": 5\n}");
/// `POST /channels`.
pub(super) const CHANNELS: [Example; 2] = [
    (
        "human",
        "{\n  \"id\": \"releases\",\n  \"name\": \"Releases\",\n  \"kind\": \"human\",\n  \"reviewDefaults\": {\"expiresInSeconds\": 3600}\n}",
    ),
    (
        "api",
        "{\n  \"name\": \"Support\",\n  \"kind\": \"api\",\n  \"agentId\": \"echo\",\n  \"busyPolicy\": \"merge\"\n}",
    ),
];
/// `PATCH /channels/{id}`.
pub(super) const DISABLE: Example = ("disable", "{\n  \"enabled\": false\n}");
/// `POST /webhook-endpoints`.
pub(super) const ENDPOINT: Example = (
    "endpoint",
    r#"{
  "url": "https://ops.example.com/hooks/tertulia",
  "events": ["review.*", "message.created"],
  "channelId": "demo",
  "format": "standard"
}"#,
);

/// `PATCH /webhook-endpoints/{id}`.
pub(super) const ENDPOINT_CHANGE: Example = ("events", "{\n  \"events\": [\"review.*\"]\n}");

/// `POST /agents`.
pub(super) const AGENTS: [Example; 2] = [
    (
        "builtin",
        r#"{
  "id": "greeter",
  "name": "Greeter",
  "provider": "builtin",
  "builtin": {
    "behaviour": "scripted",
    "script": [{"match": "hello", "reply": ["Hello!", "How can I help you?"]}],
    "latencyMs": 20
  }
}"#,
    ),
    (
        "openai",
        r#"{
  "name": "Support",
  "provider": "openai",
  "model": "gpt-4o-mini",
  "baseUrl": "https://api.openai.com/v1",
  "apiKey": "sk-example",
  "systemPrompt": "You are a friendly travel agent.",
  "temperature": 0.2,
  "maxOutputTokens": 800,
  "tools": [
    {"name": "request_review"},
    {
      "name": "find_booking",
      "description": "Finds a booking by its number.",
      "parameters": {"type": "object", "required": ["number"], "properties": {"number": {"type": "string"}}},
      "url": "https://bookings.example.com/find",
      "headers": {"Authorization": "Bearer example"}
    }
  ]
}"#,
    ),
];
/// `PATCH /agents/{id}`.
pub(super) const PROMPT: Example = ("prompt", "{\n  \"systemPrompt\": \"Answer in one sentence.\"\n}");
/// `POST /api-keys`.
pub(super) const KEY: Example = (
    "key",
    "{\n  \"name\": \"pipeline\",\n  \"scopes\": [\"messages:write\", \"messages:read\"],\n  \"principal\": {\"type\": \"agent\", \"id\": \"ci\"}\n}",
);
/// `POST /workspaces`.
pub(super) const WORKSPACE: Example = ("workspace", "{\n  \"id\": \"acme\",\n  \"name\": \"Acme\"\n}");
/// `POST /reviews/{id}/respond`.
pub(super) const ANSWER: Example = (
    "approve",
    "{\n  \"response\": {\"selectedOption\": \"approve\", \"comment\": \"Go ahead.\"},\n  \"feedback\": \"Looks good.\"\n}",
);
/// `PATCH /messages/{id}`.
pub(super) const EDIT: Example = ("edit", "{\n  \"content\": \"My name is Ana.\",\n  \"tags\": [\"travel\"]\n}");
/// `POST /messages/{id}/ack`.
pub(super) const RECEIPT: Example = ("read", "{\n  \"status\": \"read\"\n}");

/// `POST /conversations/{id}/fork` up to the newest message.
pub(super) const FORK: Example = ("whole", "{}");
