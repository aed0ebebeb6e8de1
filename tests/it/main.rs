//! Tests of the front door: the router in the same process, and one of the program itself.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test, which is what it is for")]

mod agents;
mod amendments;
mod api_keys;
mod attachments;
mod auth;
mod bodies;
mod bootstrap;
mod bursts;
mod busy;
mod channel_messages;
mod channels;
mod client;
mod contact_messages;
mod contacts;
mod conversation_messages;
mod crash;
mod dns;
mod egress;
mod faults;
mod forks;
mod idempotency;
mod isolation;
mod keeper;
mod media;
mod memories;
mod openapi;
mod origin;
mod paging;
mod races;
mod review_answers;
mod same_bytes;
mod seeds;
mod smoke;
mod support;
mod telemetry;
mod tidy;
mod timers;
mod tools;
mod transfer;
mod webhook_endpoints;
mod webhooks;
mod workspaces;
